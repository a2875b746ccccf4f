"""A receiver in a bad mood, for storms."""

import asyncio
import random

from tests.support.event_receiver import Answer, Post, Reply


class Moody:
    """A receiver in a bad mood: fails in every way it can, by chance, until it is told to behave."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.moods: dict[str, int] = dict.fromkeys(
            ("fine", "500", "429", "413", "hangs", "dies before", "dies after", "stops early"), 0
        )
        self.behaves = False

    async def __call__(self, post: Post) -> Answer:
        """Decide what to do with a request."""
        if self.behaves:
            return None
        # Whatever was seldom so far comes first, so that a storm has everything.
        mood = min(self.moods, key=lambda each: (self.moods[each], self._chance.random()))
        self.moods[mood] += 1
        some = self._chance.randint(0, len(post.events) - 1)
        ids = [f"i-{event_id}" for event_id in post.ids[:some]]
        match mood:
            case "500" | "429":
                return Reply(int(mood), {"error": "no"})
            case "413" if len(post.events) > 1:
                return Reply(413, {"error": "too much"})
            case "hangs":
                await asyncio.sleep(1.3)
                return None  # accepted, though nobody waits for the answer any more
            case "dies before":
                return Reply(0)
            case "dies after":
                return Reply(0, accepted=some)
            case "stops early":
                # As the event API does at a bad event; tried alone, it turns out to be a good one.
                if len(post.events) > 1:
                    return Reply(400, {"ids": ids or [""], "error": "bad"}, some)
        return None
