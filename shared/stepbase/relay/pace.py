"""How much a relay sends, and when. Pure: the time and the chance are arguments.

While all goes well it sends full batches, several at a time. When the receiver fails, it sends one event
at a time, after pauses that grow, until one gets through: that is cheap for a receiver that is down, it
costs few events a try, and an event which takes the receiver down is soon alone in its request.
"""

from dataclasses import dataclass
from typing import Final

LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries at a receiver that is away: what an outage is prolonged by at most."""
SUSPECT_TRIES: Final = 3
"""Tries after which an event travels alone: it may be what the receiver fails at."""
_LEAST_BYTES: Final = 16 * 1024


@dataclass(slots=True)
class Pace:
    """The state of one relay's receiver.

    Attributes:
        most: Events of a request at most, while all goes well.
        most_bytes: Bytes of a request; falls when the receiver calls a request too large.
    """

    most: int
    most_bytes: int
    _failures: int = 0
    _until: float = 0.0

    @property
    def is_troubled(self) -> bool:
        """Whether the receiver failed when it was asked last."""
        return self._failures > 0

    @property
    def failures(self) -> int:
        """How often the receiver failed in a row; also tells requests before a failure from later ones."""
        return self._failures

    @property
    def size(self) -> int:
        """How many events to lease for the next request."""
        return 1 if self.is_troubled else self.most

    def pause(self, now: float) -> float:
        """Return the seconds until the next request may be made."""
        return max(0.0, self._until - now) if self.is_troubled else 0.0

    def succeeded(self) -> None:
        """The receiver is there."""
        self._failures = 0

    def failed(self, began_at: int, now: float, chance: float, retry_after: float = 0.0) -> None:
        """The receiver failed.

        Args:
            began_at: `failures` when the request was made: requests that were under way together when it
                went away are one failure.
            now: In seconds, of a clock that only rises.
            chance: From 0 to 1.
            retry_after: Seconds it asked for.
        """
        if began_at != self._failures:
            return
        self._failures += 1
        pause = min(0.5 * 2.0 ** min(self._failures, 10), LONGEST_PAUSE) * (0.5 + chance / 2)
        self._until = now + max(pause, retry_after)

    def too_large(self, size: int) -> None:
        """The receiver, or something before it, takes no request of `size` bytes."""
        self.most_bytes = max(min(self.most_bytes, size // 2), _LEAST_BYTES)
