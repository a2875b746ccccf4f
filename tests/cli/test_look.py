"""Commands that look: lists of functions and apps, the live view, completion, and `--help`."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys

import asyncpg
import pytest
from click.testing import CliRunner
from tests.cli.conftest import Type
from tests.support.engine_client import EngineClient

from stepbase.cli.main import SECTIONS, LazyGroup, main

_COMMAND = (sys.executable, "-m", "stepbase.cli")


async def test_functions_say_what_starts_them_and_how_they_do(
    shop: EngineClient, type_in: Type
) -> None:
    await shop.result((await shop.send({"name": "shop/order"}))[0])
    await shop.result((await shop.send({"name": "shop/fails"}))[0])

    said, rows = await type_in("functions"), (await type_in("functions", "--json")).data

    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert said.code == 0 and set(lines) == {"function", "shop-order", "shop-fails", "shop-sleeps"}
    assert "1 of 1" in lines["shop-fails"] and "0 of 1" in lines["shop-order"]
    assert lines["shop-sleeps"].rstrip().endswith("event shop/sleeps")
    assert {"slug", "app", "triggers", "config", "paused_at", "live", "failed"} <= set(rows[0])


async def test_apps_say_where_they_are_and_what_their_sync_said(
    shop: EngineClient, type_in: Type, database: str
) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "update stepbase.apps set error = 'function x has no trigger', error_code = 'invalid_function'"
    )
    await connection.close()

    said, rows = await type_in("apps"), (await type_in("apps", "--json")).data

    assert said.code == 0 and "sync failed: function x has no trigger" in said.out
    assert [(row["name"], row["functions"]) for row in rows] == [("shop", 3)]
    assert rows[0]["url"].endswith("/api/inngest")
    assert "first sync" in said.out and "declared in a way that does not work" in rows[0]["remedy"]
    assert rows[0]["last_change"]["is_first"] and len(rows[0]["last_change"]["added"]) == 3


async def test_a_database_without_apps_is_exit_code_1(type_in: Type, database: str) -> None:
    for name in ("apps", "functions"):
        said = await type_in(name, "--database", database)
        empty = await type_in(name, "--database", database, "--json")

        assert (said.code, said.err) == (1, "there is none\n")
        assert (empty.code, empty.data) == (1, [])


async def tailing(*words: str) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        *(*_COMMAND, "tail", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # As from a terminal: a shell has what it starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    return process, process.stdout


async def test_tail_tells_of_events_runs_and_failures_as_they_happen(
    shop: EngineClient, database: str
) -> None:
    # From a moment ago: its first look may come after the first event.
    process, lines = await tailing("--json", "--since", "1s")
    try:
        [event] = await shop.send({"name": "shop/fails", "id": "order-9"})
        [asleep] = await shop.send({"name": "shop/sleeps"})
        found: dict[tuple[str, str], dict[str, str]] = {}
        async with asyncio.timeout(30):
            while ("failed", "shop-fails") not in found or ("started", "shop-sleeps") not in found:
                row = json.loads(await lines.readline())
                assert (row["what"], row["name"]) not in found, "told twice"
                found[row["what"], row["name"]] = row
            [run] = await shop.runs_of(asleep)
            await shop.request("DELETE", f"/v1/runs/{run['run_id']}")
            while ("cancelled", "shop-sleeps") not in found:
                row = json.loads(await lines.readline())
                found[row["what"], row["name"]] = row
    finally:
        process.terminate()
        await process.communicate()

    assert found["event", "shop/fails"]["id"] == event
    assert found["event", "shop/fails"]["text"] == "sender's id order-9"
    assert "amount is negative: -12" in found["failed", "shop-fails"]["text"]
    assert "amount is negative: -12" in found["attempt", "shop-fails"]["text"]
    assert found["started", "shop-sleeps"]["text"] == "by event shop/sleeps"
    assert found["cancelled", "shop-sleeps"]["id"] == run["run_id"]
    assert set(found["event", "shop/fails"]) == {"at", "what", "name", "id", "text"}


async def test_tail_is_plain_in_a_pipe_and_ends_when_it_is_told(
    shop: EngineClient, type_in: Type
) -> None:
    await shop.result((await shop.send({"name": "shop/order"}))[0])
    await shop.result((await shop.send({"name": "shop/fails"}))[0])

    said = await type_in("tail", "--since", "1h", "--for", "0s")
    one = await type_in("tail", "--since", "1h", "--for", "0s", "--function", "shop-order")
    other = await type_in("tail", "--since", "1h", "--for", "0s", "--event", "shop/fails")

    assert said.code == 0 and "\x1b" not in said.out
    assert [line.split()[1] for line in one.out.splitlines()] == ["started", "completed"]
    assert "shop-order" not in other.out and "failed" in other.out
    assert len(said.out.splitlines()) == 2 + 2 + 3


async def test_tail_ends_quietly_at_ctrl_c(shop: EngineClient) -> None:
    await shop.result((await shop.send({"name": "shop/order"}))[0])
    process, lines = await tailing("--since", "1h")
    assert await lines.readline()

    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 20)

    assert (process.returncode, err) == (0, b"")


async def test_tail_goes_on_when_its_session_is_ended(shop: EngineClient, database: str) -> None:
    process, lines = await tailing("--json", "--since", "1s", "--event", "shop/order")
    connection = await asyncpg.connect(database)
    try:
        await shop.send({"name": "shop/order"})
        async with asyncio.timeout(30):
            while json.loads(await lines.readline())["what"] != "completed":
                pass
            ended = await connection.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and application_name = '' and pid <> pg_backend_pid()"
            )
            [event] = await shop.send({"name": "shop/order"})
            while json.loads(await lines.readline())["id"] != event:
                pass
    finally:
        process.terminate()
        _, err = await process.communicate()
        await connection.close()

    assert ended >= 1
    assert b"the database" in err or b"terminat" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--for", "soon"), 2, "--for: "),
        (("--since", "soon"), 2, "--since: 'soon' is neither"),
        (("--database", "postgresql://127.0.0.1:1/x"), 1, "cannot be reached"),
        ((), 2, "give --database-url or set DATABASE_URL"),
    ],
)
async def test_tail_says_what_is_wrong(
    type_in: Type, words: tuple[str, ...], code: int, says: str
) -> None:
    said = await type_in("tail", *words)

    assert said.code == code and says in said.err


def test_help_lists_every_command_under_one_heading() -> None:
    assert isinstance(main, LazyGroup)
    named = [name for names in SECTIONS.values() for name in names]

    said = CliRunner().invoke(main, ["--help"]).output

    there = main.list_commands(main.make_context("stepbase", ["runs"], resilient_parsing=True))
    assert sorted(named) == sorted(there)
    headings = [line for line in said.splitlines() if line.endswith(":") and line[0] != " "]
    assert not [line for line in said.splitlines()[1:] if line.endswith("...")]
    assert headings == ["Options:", "Start:", "Look:", "Act:", "Set up:"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell: str) -> None:
    said = CliRunner().invoke(main, ["completion", shell])

    assert said.exit_code == 0 and f"_STEPBASE_COMPLETE={shell}_complete" in said.output
    program = shutil.which(shell)
    if program is not None:
        done = subprocess.run([program, "-n"], input=said.output, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_shell_completes_commands_and_options() -> None:
    def completed(*words: str) -> list[str]:
        env = {
            **os.environ,
            "_STEPBASE_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["stepbase", *words]),
            "COMP_CWORD": str(len(words)),
        }
        out = subprocess.run(_COMMAND, env=env, text=True, capture_output=True, check=True).stdout
        return [line.partition(",")[2] for line in out.splitlines()]

    assert completed("re") == ["relay", "rerun", "resume"]
    assert "--status" in completed("runs", "--st")
    assert completed("runs", "--status", "Fa") == ["failed"]
