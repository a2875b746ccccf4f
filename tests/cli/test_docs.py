"""The commands of docs/command-line.md, typed beside an engine with the functions that the page has."""

import asyncio
import json
import re
from pathlib import Path

from tests.repo.pages import blocks
from tests.repo.test_docs_commands import COMMAND_LINE, Reader, commands, reader
from tests.support.engine_client import EngineClient

__all__ = ["reader"]  # the fixture

_ENDED, _LIVE = "01M875DS7S0000000000000011", "01M875DS7S0000000000000012"


async def test_the_commands_of_the_page_work(
    shop: EngineClient, reader: Reader, database: str
) -> None:
    ended = await shop.result((await shop.send({"name": "shop/order"}))[0])
    await shop.result((await shop.send({"name": "shop/fails"}))[0])
    [asleep] = await shop.send({"name": "shop/sleeps"})
    await shop.opened(asleep, "sleep")
    [live] = await shop.runs_of(asleep)
    # Something that did not start, for the page to find.
    await shop.send({"name": "shop/other"})

    typed = [c for b in blocks(COMMAND_LINE) if b.language == "bash" for c in commands(b)]
    for command in typed:
        command = re.sub("^export DATABASE_URL=.*", f"export DATABASE_URL='{database}'", command)
        command = re.sub("^export INNGEST_DEV=.*", f"export INNGEST_DEV={shop.url}", command)
        command = command.replace(_ENDED, ended["run_id"]).replace(_LIVE, live["run_id"])
        if command.startswith("stepbase doctor"):
            command += " || test $? = 1"  # the stub of an app does not say what it is
        printed = await asyncio.to_thread(reader.type, command)
        if command.startswith("stepbase"):
            assert printed or command.startswith("stepbase tail --for"), command
        if "--json" in command:
            for line in printed.splitlines():
                json.loads(line)

    assert len(typed) >= 19
    [cancelled] = await shop.runs_of(asleep)
    assert cancelled["status"] == "Cancelled"
    assert len(await shop.ended(ended["event_id"], 3)) == 3


def test_every_command_of_the_two_headings_is_on_the_page() -> None:
    from stepbase.cli.main import SECTIONS

    text = Path(COMMAND_LINE).read_text("utf-8")

    for name in (*SECTIONS["Look"], *SECTIONS["Act"]):
        assert f"stepbase {name}" in text, name
