"""Two engine processes on one database: they share the work, and either may be killed at any time."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import asyncpg
import pytest
from tests.conftest import Connect
from tests.engine.test_crons import MINUTE, PAST, cron, make_due, sent
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase import clock, config

LEASE_SECONDS = 2.0
READY_SECONDS = 30.0


class EngineProcess:
    """An engine as its own process."""

    def __init__(self, process: asyncio.subprocess.Process, client: EngineClient) -> None:
        self.process = process
        self.client = client

    async def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            return await self.process.wait()

    def pause(self) -> None:
        """Stop it as a machine that hangs would."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)


StartProcess = Callable[[], Awaitable[EngineProcess]]


@pytest.fixture
async def start(database: str) -> AsyncIterator[StartProcess]:
    """Start engine processes on the test's database; whatever still runs is killed afterwards."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def start_one() -> EngineProcess:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "stepbase.cli", "engine", "--port", "0"),
                *("--database-url", database, "--lease", str(LEASE_SECONDS)),
                *("--retry-interval", "0.2", "--log-level", "ERROR"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env=config.environment(),
            )
            stack.push_async_callback(_end, process)
            assert process.stdout is not None
            async with asyncio.timeout(READY_SECONDS):
                ready = json.loads(await process.stdout.readline())
            assert ready["ready"] == "engine"
            return EngineProcess(
                process, EngineClient(session, f"http://127.0.0.1:{ready['port']}")
            )

        yield start_one


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    # Closes the pipe now: left to the garbage collector it would warn.
    process._transport.close()  # type: ignore[attr-defined]  # asyncio offers nothing public


class Gate:
    """A handler that holds calls until a test lets them go; `calls` are those that came."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._came = asyncio.Condition()
        self._answers: list[asyncio.Future[Answer]] = []

    async def __call__(self, call: dict[str, Any]) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        async with self._came:
            self.calls.append(call)
            self._answers.append(answer)
            self._came.notify_all()
        return await answer

    async def came(self, count: int, seconds: float = 10) -> None:
        """Wait until so many calls have come."""
        async with asyncio.timeout(seconds), self._came:
            await self._came.wait_for(lambda: len(self.calls) >= count)

    def answer(self, place: int, answer: Answer) -> None:
        """Answer a call."""
        if not self._answers[place].done():
            self._answers[place].set_result(answer)


@pytest.fixture
async def gate(host: StubHost) -> AsyncIterator[Gate]:
    """The handler of function `app-f`; calls still held at the end are let go."""
    gate = Gate()
    host.handlers["app-f"] = gate
    yield gate
    for place in range(len(gate.calls)):
        gate.answer(place, Answer(200, None))


async def emit(connection: asyncpg.Connection, name: str, n: int) -> None:
    """Put an event into the outbox."""
    await connection.execute("select stepbase.emit($1, $2)", name, json.dumps({"n": n}))


async def outputs(connection: asyncpg.Connection, count: int, seconds: float = 20) -> list[int]:
    """Wait until so many runs have completed; return their outputs, sorted."""
    async with asyncio.timeout(seconds):
        while True:
            rows = await connection.fetch(
                "select output::text from stepbase.runs where status = 'Completed'"
            )
            if len(rows) >= count:
                return sorted(int(row["output"]) for row in rows)
            await asyncio.sleep(0.02)


async def test_both_work_and_outbox_rows_become_one_run_each(
    start: StartProcess, host: StubHost, connect: Connect
) -> None:
    a, b = await asyncio.gather(start(), start())
    host.handlers["app-f"] = lambda call: (
        Answer(200, call["event"]["data"]["n"]) if call["steps"] else ops(step_run("s", 1))
    )
    await a.client.register(host.registration(host.function("app-f", retries=0)))
    connection = await connect()

    for n in range(0, 60, 3):
        await emit(connection, "app/f", n)
        await a.client.send({"name": "app/f", "data": {"n": n + 1}})
        await b.client.send({"name": "app/f", "data": {"n": n + 2}})

    assert await outputs(connection, 60) == list(range(60))
    assert await connection.fetchval("select count(*) from stepbase.runs") == 60
    assert await connection.fetchval("select count(*) from stepbase.outbox") == 0
    assert len(host.calls) == 120


async def test_each_leases_what_the_other_has_no_slot_for(
    start: StartProcess, host: StubHost, gate: Gate, connect: Connect
) -> None:
    a, b = await asyncio.gather(start(), start())
    await a.client.register(host.registration(host.function("app-f", retries=0)))
    connection = await connect()

    await a.client.send(*({"name": "app/f", "data": {"n": n}} for n in range(100)))
    await gate.came(100)
    owners = await connection.fetchval("select count(distinct owner) from stepbase.queue")
    for place in range(100):
        gate.answer(place, Answer(200, place))

    assert owners == 2
    assert await outputs(connection, 100) == list(range(100))
    assert len(gate.calls) == 100


async def test_killed_engines_call_is_taken_over_after_its_lease(
    start: StartProcess, host: StubHost, gate: Gate
) -> None:
    a = await start()
    await a.client.register(host.registration(host.function("app-f", retries=0)))
    [event_id] = await a.client.send({"name": "app/f"})
    await gate.came(1)
    b = await start()  # only now: with both there, either might have taken the run

    await a.kill()
    killed = clock.monotonic()
    await gate.came(2)
    took = clock.monotonic() - killed
    gate.answer(1, Answer(200, "from the other"))
    run = await b.client.result(event_id)

    first, second = (call["ctx"] for call in gate.calls)
    assert run["output"] == "from the other"
    assert took <= LEASE_SECONDS + 1.5
    assert second["generation_id"] > first["generation_id"]
    assert (first["attempt"], second["attempt"]) == (0, 0)
    assert first["run_id"] == second["run_id"]


async def test_killed_engines_slot_is_taken_over_and_nobody_comes_in_between(
    start: StartProcess, host: StubHost, gate: Gate, connect: Connect
) -> None:
    a = await start()
    function = host.function("app-f", retries=0, concurrency=1)
    await a.client.register(host.registration(function))
    connection = await connect()
    [first] = await a.client.send({"name": "app/f"})
    await gate.came(1)
    b = await start()
    [second] = await b.client.send({"name": "app/f"})

    await a.kill()
    await gate.came(2)
    held = await connection.fetchval(
        "select count(*) from stepbase.queue where owner is not null and key_1 is not null"
    )
    gate.answer(1, Answer(200, "first"))
    await gate.came(3)
    gate.answer(2, Answer(200, "second"))

    assert held == 1
    assert (await b.client.result(first))["output"] == "first"
    assert (await b.client.result(second))["output"] == "second"
    assert [call["ctx"]["run_id"] for call in gate.calls[:2]] == [
        gate.calls[0]["ctx"]["run_id"]
    ] * 2


async def test_late_reply_to_an_engine_that_hung_changes_nothing(
    start: StartProcess, host: StubHost, gate: Gate, connect: Connect
) -> None:
    a = await start()
    await a.client.register(host.registration(host.function("app-f", retries=0)))
    connection = await connect()
    [event_id] = await a.client.send({"name": "app/f"})
    await gate.came(1)
    b = await start()

    a.pause()
    await gate.came(2)
    gate.answer(0, ops(step_run("zombie", 1)))
    a.resume()
    # The reply is in: whatever comes next from this engine comes after it has been thrown away.
    [other] = await a.client.send({"name": "app/f"})
    await gate.came(3)
    gate.answer(2, Answer(200, "alive"))
    assert (await a.client.result(other))["output"] == "alive"
    assert await connection.fetchval("select count(*) from stepbase.steps") == 0
    gate.answer(1, Answer(200, "right"))

    assert (await b.client.result(event_id))["output"] == "right"
    assert len(gate.calls) == 3


async def test_rows_written_while_no_engine_runs_become_runs_when_one_starts(
    start: StartProcess, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["data"]["n"])
    first = await start()
    await first.client.register(host.registration(host.function("app-f")))
    await first.kill()
    connection = await connect()

    for n in range(5):
        await emit(connection, "app/f", n)
    transaction = connection.transaction()
    await transaction.start()
    await emit(connection, "app/f", 99)
    await transaction.rollback()
    await start()

    assert await outputs(connection, 5) == list(range(5))
    assert await connection.fetchval("select count(*) from stepbase.events") == 5


async def test_rows_of_a_transaction_still_open_come_when_it_commits(
    start: StartProcess, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, call["event"]["data"]["n"])
    engine = await start()
    await engine.client.register(host.registration(host.function("app-f")))
    writer, other = await connect(), await connect()

    transaction = writer.transaction()
    await transaction.start()
    await emit(writer, "app/f", 1)
    await emit(other, "app/f", 2)
    assert await outputs(other, 1) == [2]
    await transaction.commit()

    assert await outputs(other, 2) == [1, 2]


async def test_engine_asked_to_end_finishes_the_call_in_flight(
    start: StartProcess, host: StubHost, gate: Gate, connect: Connect
) -> None:
    engine = await start()
    await engine.client.register(host.registration(host.function("app-f", retries=0)))
    connection = await connect()
    await engine.client.send({"name": "app/f"})
    await gate.came(1)

    ending = asyncio.create_task(engine.terminate())
    async with asyncio.timeout(5):
        while await _health(engine) == 200:
            await asyncio.sleep(0.02)
    assert await _health(engine) == 503, "it takes no more work, but answers those in flight"
    await asyncio.wait({ending}, timeout=1)
    assert not ending.done()
    gate.answer(0, Answer(200, "settled"))

    assert await ending == 0
    row = await connection.fetchrow("select status, output::text from stepbase.runs")
    assert row is not None and tuple(row) == ("Completed", '"settled"')
    assert await connection.fetchval("select count(*) from stepbase.queue") == 0


async def test_a_schedule_fires_each_instant_once_though_one_of_three_engines_dies(
    start: StartProcess, host: StubHost, connect: Connect
) -> None:
    host.handlers["app-f"] = lambda _: Answer(200, None)
    engines = await asyncio.gather(start(), start(), start())
    await engines[2].client.register(
        host.registration(host.function("app-f", triggers=[cron("0 0 1 1 *")]))
    )
    connection = await connect()

    for n in range(1, 9):
        await make_due(connection, PAST + n * MINUTE)
        if n in (3, 6):
            # All were told a moment ago: it dies before, while or after it fires, or another one did.
            await engines[n // 6].kill()
        await sent(connection, n)

    assert await sent(connection, 8) == [f"2026-01-31T12:0{n}:00Z" for n in range(1, 9)]
    assert await connection.fetchval("select count(*) from stepbase.outbox") == 0


async def _health(engine: EngineProcess) -> int:
    status, _ = await engine.client.request("GET", "/health")
    return status
