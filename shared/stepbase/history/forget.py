"""Forgetting a person, a batch of events after the other."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import asyncpg

from stepbase.history.reads import connected

_MOST_PLACES = 20
# A shorter id is part of many texts. As in the SQL function.
_PART_OF_A_TEXT = 16
_COUNTS = ("events", "runs", "steps", "attempts", "results")


@dataclass(slots=True)
class Forgotten:
    """What was taken out, and what is left.

    Attributes:
        live_runs: Runs that go on; forget again when they have ended.
        in_outbox: Events of the user that have not left the outbox.
        elsewhere: Events that hold the id at none of the places that were looked at.
        places: Where some of those hold it, e.g. ``"data.about"``.
    """

    events: int = 0
    runs: int = 0
    steps: int = 0
    attempts: int = 0
    results: int = 0
    live_runs: list[str] = field(default_factory=list)
    in_outbox: int = 0
    elsewhere: int = 0
    places: list[str] = field(default_factory=list)

    @property
    def is_all(self) -> bool:
        """True if nothing is left that this can see."""
        return not self.live_runs and not self.in_outbox and not self.elsewhere


async def forget(
    url: str,
    user: str,
    paths: Sequence[str] = (),
    *,
    is_dry: bool = False,
    batch: int = 5000,
    tell: Callable[[Forgotten], None] = lambda _: None,
) -> Forgotten:
    """Take a user's data out of the record, each batch in a transaction of its own; see `stepbase.forget`.

    Args:
        paths: Where else in an event their id stands, e.g. ``"data.user_id"``.
        is_dry: Only count.
        tell: Called after each batch.

    Raises:
        StoreError: As `reads.reading`; what was forgotten before stays so.
    """
    total = Forgotten()
    after: str | None = ""
    live: set[str] = set()
    async with connected(url) as db:
        while after is not None:
            [row] = await db.fetch(
                "select * from stepbase.forget($1, $2, $3, $4, $5)",
                user, list(paths), after, batch, is_dry,
            )  # fmt: skip
            for name in _COUNTS:
                setattr(total, name, getattr(total, name) + row[name])
            live.update(row["live_runs"])
            total.live_runs = sorted(live)
            total.in_outbox += row["in_outbox"]
            total.elsewhere += row["elsewhere"]
            if len(total.places) < _MOST_PLACES:
                total.places = await _places(db, row["elsewhere_ids"], user, total.places)
            after = row["last"]
            tell(total)
    return total


async def _places(
    db: "asyncpg.Connection[asyncpg.Record]", ids: Sequence[str], user: str, known: Sequence[str]
) -> list[str]:
    """Return where these events hold a user's id, as one gives it for a path, with the places known."""
    found = dict.fromkeys(known)
    for row in await db.fetch(
        "select payload from stepbase.events where id = any ($1) order by id", list(ids)
    ):
        with contextlib.suppress(RecursionError):  # nested too deep to be looked into
            found.update(dict.fromkeys(_where(json.loads(row["payload"]), user, "")))
    return list(found)[:_MOST_PLACES]


def _where(value: object, user: str, path: str) -> Iterator[str]:
    """Yield the paths to texts that hold a user's id."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _where(each, user, f"{path}.{name}")
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _where(each, user, f"{path}.{place}")
    elif value == user:
        yield path[1:]
    elif isinstance(value, str) and len(user) >= _PART_OF_A_TEXT and user in value:
        yield f"{path[1:]} (as a part)"
