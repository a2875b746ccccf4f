"""The commands of docs/monitoring.md, typed on a database with a small history."""

import json

import asyncpg
from tests.monitor.fill import fill
from tests.repo.pages import blocks
from tests.repo.test_docs_commands import MONITORING, Reader, commands, reader

__all__ = ["reader"]  # the fixture

PUSHES = "supabase "


async def test_the_commands_of_the_page_work(reader: Reader, database: str) -> None:
    connection = await asyncpg.connect(database)
    await fill(connection)
    failed = await connection.fetchval(
        "select run_id from stepbase.runs where status = 'Failed' order by run_id limit 1"
    )
    await connection.close()

    typed = [
        command
        for block in blocks(MONITORING)
        if block.language == "bash"
        for command in commands(block)
        if not command.startswith(PUSHES)  # tests/monitor/test_notebook.py does that
    ]
    for command in typed:
        if command.startswith("export DATABASE_URL="):
            command = f"export DATABASE_URL='{database}'"
        if command.startswith("stepbase trace "):
            command = f"stepbase trace {failed}"
        printed = reader.type(command)
        assert command.startswith("export") or printed, command

    assert len(typed) >= 8
    assert len(json.loads(reader.type("stepbase runs --json"))) == 20
