"""Keeps what a person needs to understand a round that went wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg

_OF_RUN = (
    "join stepbase.runs r using (run_id) join stepbase.events e on e.id = r.event_id"
    " where e.payload #>> '{data,source_id}' = any ($1)"
)
_QUERIES = {
    "purchases": "select * from public.purchases where id = any ($1)",
    "transactions": "select * from public.wallet_transactions where source_id = any ($1) order by id",
    "events": "select * from stepbase.events where payload #>> '{data,source_id}' = any ($1) order by id",
    "runs": "select r.* from stepbase.events e join stepbase.runs r on r.event_id = e.id"
    " where e.payload #>> '{data,source_id}' = any ($1) order by r.run_id",
    "steps": f"select s.* from stepbase.steps s {_OF_RUN} order by s.run_id, s.pos",
    "attempts": f"select a.* from stepbase.attempts a {_OF_RUN} order by a.run_id, a.id",
    "queue": "select *, $1::text[] is null as ignored from stepbase.queue",
    "outbox": "select *, $1::text[] is null as ignored from stepbase.outbox",
    "ledger": "select l.* from stepbase.ledger l where split_part(l.key, ':', 3) = any ($1)"
    f" or l.run_id in (select s.run_id from stepbase.steps s {_OF_RUN}) order by created_at",
}


async def keep_evidence(
    dsn: str, folder: Path, problems: Sequence[Mapping[str, str]], standing: str
) -> None:
    """Write the problems, how things stood, and every row about the purchases concerned."""
    folder.mkdir(parents=True)
    (folder / "standing").write_text(standing + "\n", "utf-8")
    (folder / "problems.json").write_text(json.dumps(problems, indent=1), "utf-8")
    ids = sorted({problem["purchase"] for problem in problems} - {""})
    connection = await asyncpg.connect(dsn)
    try:
        for name, sql in _QUERIES.items():
            rows = await connection.fetch(sql, ids)
            lines = [json.dumps(dict(row), default=str) for row in rows]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    finally:
        await connection.close()
