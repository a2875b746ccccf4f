"""Runs with limits, on one connection: functions that have them, and runs that wait in lanes."""

from collections.abc import Sequence
from typing import Any

from tests.support import engine_sql as sql
from tests.support.engine_sql import Hands

from stepbase.engine.lanes import Lane
from stepbase.engine.starts import Start
from stepbase.protocol.jsontext import dumps


async def keep(hands: Hands, number: int = 1, **flow: object) -> None:
    """Store a function with these limits."""
    given = sql.function(number)
    row = (given.function_id, given.config.slug, "f", "{}", dumps({"limits": [], **flow}))
    await hands.register_app(
        given.function_id, f"app{number}", "http://x", "", "", str(flow), [row]
    )


def lane(
    *keys: str, throttle: str | None = None, run: str | None = None, function: int = 1
) -> Lane:
    """Return the lane of a function's calls with these keys."""
    name = f"{function} {' '.join(keys)}" if keys else ""
    if throttle is not None or run is not None:
        name += f"\x1f{throttle or ''}"
    if run is not None:
        name += f"\x1f{run}"
    first, second = (*keys, None, None)[:2]
    return Lane(name, (first, second))


async def begin(hands: Hands, count: int, where: Lane, **changes: Any) -> list[Start]:
    """Start runs in a lane."""
    runs = [sql.start(i + 1, lane=where, **changes) for i in range(count)]
    await hands.take_in([sql.event() for _ in runs], runs)
    return runs


def ids(rows: Sequence[Any]) -> list[str]:
    """Return the runs of leased items."""
    return [row["run_id"] for row in rows]
