"""`stepbase runs`, `trace`, `events` and `forget`, as typed."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner
from tests.monitor.fill import fill
from tests.support import pgbouncer
from tests.support.server import Server

from stepbase.cli.main import main
from stepbase.local.postgres import Cluster


def run(*words: str) -> tuple[int, str, str]:
    answer = CliRunner().invoke(main, list(words))
    return answer.exit_code, answer.stdout, answer.stderr


@pytest.fixture
async def url(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a small history, named by DATABASE_URL."""
    connection = await asyncpg.connect(database)
    await fill(connection)
    await connection.close()
    monkeypatch.setenv("DATABASE_URL", database)
    return database


async def rows(*words: str) -> list[dict[str, object]]:
    code, out, err = await asyncio.to_thread(run, *words, "--json")
    assert code in (0, 1), err
    found: list[dict[str, object]] = json.loads(out)
    return found


async def test_runs_are_listed_newest_first_a_page_at_a_time(url: str) -> None:
    code, out, err = await asyncio.to_thread(run, "runs", "--limit", "4")
    lines = out.splitlines()
    first = await rows("runs", "--limit", "40")
    second = await rows("runs", "--limit", "40", "--before", str(first[-1]["run_id"]))

    assert code == 0 and len(lines) == 5
    assert lines[0].split("  ")[0].strip() == "run"
    assert "orders-follow-up" in lines[1] and "asleep until" in lines[1]
    assert f"more: --before {lines[-1].split()[0]}" in err
    ids = [str(row["run_id"]) for row in first + second]
    assert len(ids) == len(set(ids)) == 58 and ids == sorted(ids, reverse=True)


async def test_runs_are_filtered(url: str) -> None:
    failed = await rows("runs", "--status", "failed")
    of_function = await rows("runs", "--function", "currency-reverse", "--limit", "100")
    by_event = await rows("runs", "--event", "order/paid")
    young = await rows("runs", "--since", "10m", "--status", "Completed")

    assert len(failed) == 5 and {row["status"] for row in failed} == {"Failed"}
    assert len(of_function) == 11
    assert {row["function"] for row in by_event} == {"orders-follow-up"} and len(by_event) == 3
    assert len(young) == 9


async def test_an_unknown_function_is_told_which_there_are(url: str) -> None:
    code, _, err = await asyncio.to_thread(run, "runs", "--function", "currency-avard")

    assert code == 1
    assert (
        "there is no function 'currency-avard'; there are currency-award, currency-reverse" in err
    )


async def test_nothing_found_is_exit_code_1(url: str) -> None:
    assert await asyncio.to_thread(run, "runs", "--status", "skipped") == (1, "", "there is none\n")
    assert (await asyncio.to_thread(run, "events", "--name", "no/such"))[0] == 1


@pytest.mark.parametrize("words", [("--since", "soon"), ("--limit", "0"), ("--status", "odd")])
async def test_misuse_is_exit_code_2(url: str, words: tuple[str, ...]) -> None:
    assert (await asyncio.to_thread(run, "runs", *words))[0] == 2


async def test_trace_tells_what_happened_in_a_failed_run(url: str) -> None:
    [failed, *_] = await rows("runs", "--status", "failed")
    code, out, _ = await asyncio.to_thread(run, "trace", str(failed["run_id"]))
    lines = out.splitlines()

    assert code == 0
    assert lines[0].startswith(f"{failed['run_id']}  currency-award  Failed after 1.0 s")
    steps = [line.strip().split("  ")[0] for line in lines[4:]]
    assert steps[:6] == [
        "(queued)", "calc_currency_for_source", "get_merchant_config",
        "attempt 0 of post_wallet_transaction", "post_wallet_transaction",
        "attempt 1 of post_wallet_transaction",
    ]  # fmt: skip
    assert "error: RpcError: post_wallet_transaction: the wallet is closed (P0001)" in out
    assert "  because of APIError: the wallet is closed" in out


async def test_trace_tells_what_a_live_run_waits_for(url: str) -> None:
    for run_ in await rows("runs", "--event", "order/paid"):
        _, out, _ = await asyncio.to_thread(run, "trace", str(run_["run_id"]))
        if str(run_["run_id"]).endswith("1"):
            assert "give-it-a-day" in out and "asleep" in out and "until 2" in out
        else:
            assert "refund" in out and "for order/refunded until 2" in out
        assert "Running for" in out and "now: " in out


async def test_trace_as_json_has_all_of_it(url: str) -> None:
    [failed, *_] = await rows("runs", "--status", "failed")
    _, out, _ = await asyncio.to_thread(run, "trace", str(failed["run_id"]), "--json")
    found = json.loads(out)

    assert set(found) == {"run", "timeline", "waits", "invoked"}
    assert found["run"]["status"] == "Failed" and len(found["timeline"]) == 7


async def test_a_run_that_is_not_there_is_exit_code_1(url: str) -> None:
    code, _, err = await asyncio.to_thread(run, "trace", "01J0000000000000000000NONE")

    assert code == 1 and "there is no run '01J0000000000000000000NONE'" in err


async def test_events_say_what_they_led_to(url: str) -> None:
    _, out, _ = await asyncio.to_thread(run, "events", "--limit", "5")
    stuck = await rows("events", "--not-started")
    [one] = await rows("events", "--id", "purchase-11")
    same = await rows("events", "--id", str(one["id"]))

    assert "currency-award Completed" in out and "orders-follow-up rate_limited" in out
    assert [row["event_id"] for row in stuck] == ["order-4"]
    assert one["started"] == "currency-award Failed" and same == [one]


async def test_on_a_terminal_there_are_bars_to_scale(url: str) -> None:
    [failed, *_] = await rows("runs", "--status", "failed")
    out = await asyncio.to_thread(_on_a_terminal, "trace", str(failed["run_id"]))

    bars = {line.split("  ")[0].strip(): line for line in out.splitlines() if "█" in line}
    assert set(bars) == {
        "calc_currency_for_source",
        "get_merchant_config",
        "post_wallet_transaction",
    }
    begins = [
        bars[name].index("█") for name in sorted(bars, key=lambda name: bars[name].index("█"))
    ]
    assert begins == sorted(begins)
    # 380 ms against 40: to scale, give or take a column at both ends.
    assert bars["post_wallet_transaction"].count("█") >= 4 * bars["calc_currency_for_source"].count(
        "█"
    )
    assert out.count("✗") == 2 and "0 … 1.0 s" in out
    assert max(map(len, out.splitlines())) <= 100


def _on_a_terminal(*words: str) -> str:
    """Run a command on a terminal of 100 columns; colours are taken out."""
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stepbase.cli", *words], stdout=slave, stderr=slave, env=env
    )
    os.close(slave)
    said = b""
    try:
        while chunk := os.read(master, 65536):
            said += chunk
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert process.wait(20) == 0, said
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).replace("\r", "")


async def test_nothing_is_written(url: str) -> None:
    connection = await asyncpg.connect(url)
    before = await connection.fetchval("select pg_current_xact_id()::text::bigint")
    for words in (("runs",), ("events",), ("runs", "--function", "currency-award")):
        await asyncio.to_thread(run, *words)
    after = await connection.fetchval("select pg_current_xact_id()::text::bigint")
    await connection.close()

    # Reading takes no transaction id. (Other databases of the server may take some.)
    assert after - before < 50


async def test_a_database_that_is_none_is_explained(cluster: Server, tmp_path: Path) -> None:
    name = await cluster.create()
    try:
        empty = await asyncio.to_thread(run, "runs", "--database-url", cluster.dsn(name))
    finally:
        await cluster.drop(name)
    gone = await asyncio.to_thread(run, "runs", "--database-url", cluster.dsn("no_such"))
    away = await asyncio.to_thread(
        run, "events", "--database-url", f"postgresql://x@/x?host={tmp_path}"
    )
    without = await asyncio.to_thread(run, "trace", "01J")
    odd = await asyncio.to_thread(run, "runs", "--database-url", "http://example.com")

    assert empty[0] == 1 and "stepbase db apply brings it up to date" in empty[2]
    assert gone[0] == 1 and "is the name at the end of the URL right?" in gone[2]
    assert away[0] == 1 and "the database cannot be reached" in away[2]
    assert without[0] == 2 and "give --database-url or set DATABASE_URL" in without[2]
    assert odd[0] == 1 and "Error: " in odd[2]


async def test_they_work_through_a_transaction_pooler(tmp_path: Path) -> None:
    program = pgbouncer.find(tmp_path)
    if program is None:
        return  # nothing here to pool with
    from tests.conftest import migration_files

    from stepbase.local import migrate

    with Cluster(port=0, durable=False) as cluster:
        await migrate.apply_files(cluster.dsn(), migration_files())
        connection = await asyncpg.connect(cluster.dsn())
        await fill(connection)
        await connection.close()
        with program.serving(tmp_path, cluster.dsn(), "transaction") as pooled:
            for _ in range(3):
                code, out, err = await asyncio.to_thread(
                    run, "runs", "--limit", "3", "--database-url", pooled
                )
                assert (code, len(out.splitlines())) == (0, 4), err


async def test_forget_asks_says_what_it_did_and_what_is_left(url: str) -> None:
    dry = await asyncio.to_thread(run, "forget", "user-1", "--dry-run")
    not_asked = await asyncio.to_thread(run, "forget", "user-1")
    done = await asyncio.to_thread(run, "forget", "user-1", "--yes", "--json")
    nobody = await asyncio.to_thread(run, "forget", "nobody", "--yes", "--path", "data.user_id")

    assert dry[0] == 1 and dry[1].startswith("would be taken out of 1 events, 0 runs")
    assert not_asked[0] == 1 and "Take what is of 'user-1'" in not_asked[1]
    found = json.loads(done[1])
    assert done[0] == 1 and found["events"] == 1 and len(found["live_runs"]) == 3
    assert nobody[0] == 0 and nobody[1].startswith("taken out of 0 events")
