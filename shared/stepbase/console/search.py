"""Runs by what people know of them, a page at a time; how they are found is `history.search`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from stepbase.console.reads import Reads, Row
from stepbase.history import search
from stepbase.history.search import Wanted

PAGE = 50


@dataclass(frozen=True, slots=True)
class Found:
    """One page.

    Attributes:
        runs: Rows of `stepbase.run_overview`, newest first.
        older: The key of the next page, or None if there is nothing further.
        until: How far back this page has looked, if it is not full.
    """

    runs: Sequence[Row]
    older: str | None
    until: datetime | None = None


async def find_runs(reads: Reads, wanted: Wanted) -> Found:
    """Find a page of runs."""
    hits = await search.find(reads.all, wanted, PAGE)
    runs = await reads.all(OVERVIEW, hits.ids) if hits.ids else []
    return Found(runs, hits.older, hits.until)


def as_json(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row as the pages' JSON has it: instants in ISO 8601, UTC."""
    return {
        key: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for key, value in row.items()
    }


OVERVIEW = """
select o.*, r.function_id, r.event_id as event_row from unnest($1::text[]) as u (id)
  cross join lateral (select * from stepbase.run_overview x where x.run_id = u.id offset 0) o
  cross join lateral (select x.function_id, x.event_id from stepbase.runs x where x.run_id = u.id offset 0) r
  order by o.run_id desc
"""
