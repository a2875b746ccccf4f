"""No statement of a page goes through a large table from end to end.

The reading session forbids such scans where an index will do, so one in a plan means that none does.
At a million runs: `scripts/bench console`.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from tests.console.conftest import Shown

from stepbase.console.page import Desk
from stepbase.console.reads import Reads, Row
from stepbase.console.site import PAGES
from stepbase.protocol.ids import hash_step_id

_LARGE = re.compile(r"Seq Scan on (events|runs|steps|attempts|queue|pauses|not_started)\b")
_QUERIES = ("", "status=live", "status=Failed", "status=Cancelled&function=app-f", "event=app/f",
            "text=needle&since=1d", "name=app/f", "name=app/f&text=x", "of=output", "step=x",
            "attempt=1", f"step={hash_step_id('a')}")  # fmt: skip


class Noting(Reads):
    """Reads, and notes each statement with its plan."""

    def __init__(self, dsn: str, connection: asyncpg.Connection) -> None:
        super().__init__(dsn)
        self._explaining = connection
        self.plans: dict[str, str] = {}

    async def all(self, sql: str, *args: object) -> Sequence[Row]:
        """Note the plan, then read."""
        rows = await self._explaining.fetch(f"explain {sql}", *args)
        self.plans[sql] = "\n".join(row[0] for row in rows)
        return await super().all(sql, *args)


async def test_every_statement_has_an_index(
    shown: Shown, database: str, make_run: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    run = await make_run()
    connection = await asyncpg.connect(database)
    await connection.execute("set enable_seqscan = off; set enable_hashjoin = off")
    reads = Noting(database, connection)
    desk = Desk(shown.engine, reads)
    values = {
        "run_id": run["run_id"],
        "event_id": run["event_id"],
        "slug": "app-f",
        "name": "app/f",
    }

    for path, handler in PAGES.items():
        for query in _QUERIES:
            await handler(desk, _request(path, query, values))

    await reads.close()
    await connection.close()
    assert len(reads.plans) > 25
    found = [(sql, plan) for sql, plan in reads.plans.items() if _LARGE.search(plan)]
    assert found == [], found[0][0] + "\n" + found[0][1]


def _request(path: str, query: str, values: dict[str, str]) -> Request:
    return Request(
        {
            "type": "http", "method": "GET", "path": path, "query_string": query.encode(),
            "path_params": values, "headers": [(b"host", b"localhost")], "scheme": "http",
            "server": ("localhost", 80), "app": Starlette(),
        }
    )  # fmt: skip
