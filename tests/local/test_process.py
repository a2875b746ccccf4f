"""One supervised process: ready, stopped, killed, restarted, hung."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from stepbase.local import process as process_module
from stepbase.local.errors import ChildError
from stepbase.local.process import Piece, describe
from stepbase.local.watchdog import Watchdog

READY = """
import json, sys, time
print(json.dumps({"ready": "it", "port": int(sys.argv[1]) or 4242}), flush=True)
"""
FOREVER = READY + "time.sleep(60)\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER

Make = Callable[..., Piece]


@pytest.fixture
def lines() -> list[str]:
    """What the piece said."""
    return []


@pytest.fixture
async def make(lines: list[str]) -> AsyncIterator[Make]:
    """Build a piece that runs a script; it is gone after the test."""
    watchdog, pieces = Watchdog(), []

    def build(script: str, **options: object) -> Piece:
        piece = Piece(
            "it",
            lambda port: [sys.executable, "-c", script, str(port)],
            dict(os.environ),
            watchdog,
            lambda name, line: lines.append(line),
            **options,  # type: ignore[arg-type]  # by name
        )
        pieces.append(piece)
        return piece

    yield build
    for piece in pieces:
        await piece.abandon()
    watchdog.close()


async def test_start_waits_until_it_is_ready(make: Make, lines: list[str]) -> None:
    piece = make("import sys; print('hello'); print('oops', file=sys.stderr)\n" + FOREVER)

    await piece.start()

    assert piece.is_ready and piece.port == 4242
    assert {"hello", "oops"} <= set(lines)
    await piece.stop()
    assert not piece.running
    with pytest.raises(ChildError, match="not running"):
        _ = piece.pid


async def test_a_process_that_ends_at_once_is_reported_with_its_words(make: Make) -> None:
    piece = make("import sys; print('the reason', file=sys.stderr); sys.exit(3)")

    with pytest.raises(ChildError, match="it ended at once: the reason"):
        await piece.start()
    assert not piece.running


async def test_a_process_that_never_is_ready_is_killed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_READY_SECONDS", 0.3)
    piece = make("import time; time.sleep(60)")

    with pytest.raises(ChildError, match="not ready after"):
        await piece.start()
    assert not piece.running


async def test_a_killed_process_comes_back_on_the_same_port(make: Make, lines: list[str]) -> None:
    piece = make(FOREVER)
    await piece.start()
    first = piece.pid

    await piece.kill()
    await piece.wait_ready()

    assert piece.pid != first
    assert piece.port == 4242
    assert lines[0] == "died (by SIGKILL)"
    await piece.stop()


async def test_a_process_that_dies_as_soon_as_it_is_ready_comes_back_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = make(FOREVER)
    await piece.start()
    wait_first_ready, lives = piece._wait_first_ready, []

    async def then_die(exited: "asyncio.Task[int]") -> None:
        await wait_first_ready(exited)
        lives.append(piece.pid)
        if len(lives) == 1:
            os.kill(piece.pid, signal.SIGKILL)
            await exited

    monkeypatch.setattr(piece, "_wait_first_ready", then_die)
    await piece.kill()
    async with asyncio.timeout(10):
        while len(lives) < 2:
            await asyncio.sleep(0.02)

    assert piece.is_ready and piece.pid == lives[1]


async def test_an_unsupervised_process_stays_dead(make: Make, lines: list[str]) -> None:
    piece = make(READY, supervise=False)

    await piece.start()
    async with asyncio.timeout(10):
        while "died (exit code 0)" not in lines:
            await asyncio.sleep(0.01)

    assert not piece.running


async def test_a_deaf_process_is_killed(
    make: Make, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_GRACE_SECONDS", 0.2)
    piece = make(DEAF)
    await piece.start()

    await piece.stop()

    assert not piece.running
    assert "killing it" in lines[-1]


async def test_a_stopped_process_is_killed_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_GRACE_SECONDS", 0.2)
    piece = make(FOREVER)
    await piece.start()
    os.kill(piece.pid, signal.SIGSTOP)

    await piece.stop()

    assert not piece.running


async def test_stop_between_two_lives_ends_it(make: Make, lines: list[str]) -> None:
    piece = make(READY)
    await piece.start()
    async with asyncio.timeout(10):
        while not lines:
            await asyncio.sleep(0.01)

    await piece.stop()

    seen = len(lines)
    assert not piece.running
    await asyncio.sleep(0)
    assert len(lines) == seen


async def test_ready_again_is_passed_on(make: Make) -> None:
    heard: list[object] = []
    piece = make(FOREVER, on_ready=heard.append)

    await piece.start()
    await piece.kill()
    await piece.wait_ready()
    await piece.stop()

    assert heard == [{"ready": "it", "port": 4242}] * 2


async def test_wait_ready_gives_up(make: Make) -> None:
    piece = make(FOREVER)

    with pytest.raises(ChildError, match="not ready after 0.01 s"):
        await piece.wait_ready(0.01)


async def test_a_left_behind_grandchild_does_not_hide_the_death(make: Make) -> None:
    script = "import subprocess\nsubprocess.Popen(['sleep', '3'])\n" + READY
    piece = make(script, supervise=False)

    await piece.start()
    async with asyncio.timeout(2.5):
        while piece.running:
            await asyncio.sleep(0.01)
    await piece.stop()


async def test_long_lines_are_passed_on_whole(make: Make, lines: list[str]) -> None:
    piece = make(f"print('x' * {1 << 18})\n" + FOREVER)

    await piece.start()
    await piece.stop()

    assert lines[0] == "x" * (1 << 18)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "by SIGKILL"), (-200, "by signal 200")],
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert describe(code) == words
