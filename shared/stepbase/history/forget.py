"""Forgetting a person, a batch of events after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepbase.history.reads import connected

_COUNTS = ("events", "runs", "steps", "attempts", "results")


@dataclass(slots=True)
class Forgotten:
    """What was taken out, and what is left.

    Attributes:
        live_runs: Runs that go on; forget again when they have ended.
        in_outbox: Events of the user that have not left the outbox.
    """

    events: int = 0
    runs: int = 0
    steps: int = 0
    attempts: int = 0
    results: int = 0
    live_runs: list[str] = field(default_factory=list)
    in_outbox: int = 0

    @property
    def is_all(self) -> bool:
        """True if nothing is left that this can see."""
        return not self.live_runs and not self.in_outbox


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
            after = row["last"]
            tell(total)
    return total
