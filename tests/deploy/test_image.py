"""The staged folder as its image runs it: in a bare environment, by its Dockerfile's own command."""

import asyncio
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.repo.tree import ROOT
from tests.support import bare
from tests.support.gateway import running_gateway
from tests.support.platform import free_port, start, stop

from stepbase import clock
from stepbase.deploy import lock, staging, verify
from stepbase.deploy.plan import Served, Verify
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.protocol import names, signing
from stepbase.sdk.http import Answer

SIGNING_KEY = "signkey-prod-" + "5e" * 32
EVENT_KEY = "event-key-of-the-shop"
MOST_SECONDS = 2.0
MOST_MEGABYTES = 120
_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"


@pytest.fixture
def staged(tmp_path: Path) -> tuple[Path, int]:
    """The folder "currency", staged for a port of this machine; returns folder and port."""
    port = free_port()
    pins = lock.parse((ROOT / lock.FILE).read_text())
    found = staging.stage(
        ROOT,
        ROOT / "functions" / "currency",
        pins,
        surroundings={
            "INNGEST_SERVE_ORIGIN": f"http://127.0.0.1:{port}",
            "INNGEST_SERVE_PATH": "/api/inngest",
        },
        has_app=True,
    )
    staging.write(tmp_path, found)
    return tmp_path / found.folder, port


@pytest.fixture
def programs(staged: tuple[Path, int]) -> Path:
    """The programs of a bare environment; bytecode is made, as the Dockerfile says."""
    folder, _ = staged
    found = bare.environment(folder / "requirements.txt")
    subprocess.run([found / "python", "-m", "compileall", "-q", folder], check=True)
    return found


@contextlib.contextmanager
def started(
    staged: tuple[Path, int], programs: Path, **secrets: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the image's command."""
    folder, port = staged
    given = {"INNGEST_SIGNING_KEY": SIGNING_KEY, "INNGEST_EVENT_KEY": EVENT_KEY, **secrets}
    process, _ = start(folder, given, programs, port)
    try:
        yield process
    finally:
        stop(process)


def megabytes(process: "subprocess.Popen[bytes]") -> float:
    """Return the resident memory of a process and its children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in (process.pid, *children)]
    lines = [line for each in statuses for line in each.splitlines() if line.startswith("VmRSS:")]
    assert len(lines) == len(children) + 1 and children
    return sum(int(line.split()[1]) for line in lines) / 1024


def health_check(folder: Path, programs: Path, port: int) -> int:
    """Run the image's own HEALTHCHECK; returns its exit code."""
    dockerfile = (folder / "Dockerfile").read_text().replace("\\\n", "")
    [line] = [each for each in dockerfile.splitlines() if each.startswith("HEALTHCHECK ")]
    command, *words = json.loads(line.partition("CMD")[2])
    environment = {"PATH": "/usr/bin:/bin", "PORT": str(port)}
    done = subprocess.run([programs / command, *words], env=environment, capture_output=True)
    return done.returncode


def test_it_starts_quickly_small_and_stops_in_peace(
    staged: tuple[Path, int], programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, port = staged
    origin = f"http://127.0.0.1:{port}"
    bound, answered, sizes = [], [], []
    for _ in range(3):
        before = time.monotonic()
        with started(staged, programs) as process:
            bound.append(time.monotonic() - before)
            health = httpx.get(f"{origin}/health")
            answered.append(time.monotonic() - before)
            seen = httpx.get(f"{origin}/api/inngest").json()
            sizes.append(megabytes(process))
            assert health_check(folder, programs, port) == 0
        assert process.returncode == 0
    assert health_check(folder, programs, port) == 1

    with capsys.disabled():
        print(
            f"\nstaged currency: port bound {min(bound):.2f} s, first answer {min(answered):.2f} s, "
            f"{max(sizes):.0f} MB resident"
        )
    deployment = next(
        line.partition("=")[2]
        for line in (folder / "Dockerfile").read_text().replace("\\", "").split()
        if line.startswith("STEPBASE_DEPLOYMENT=")
    )
    assert health.json() == {"status": "ok", "deployment": deployment}
    assert (seen["mode"], seen["has_signing_key"], seen["has_event_key"]) == ("cloud", True, True)
    assert min(bound) < MOST_SECONDS
    assert max(sizes) <= MOST_MEGABYTES


def test_a_call_under_way_is_finished_when_it_is_stopped(
    staged: tuple[Path, int], programs: Path
) -> None:
    folder, port = staged
    (folder / "main.py").write_text(_SLOW)
    with started(staged, programs) as process, httpx.Client(timeout=20) as client:
        body = _CALL.encode()
        signature = signing.sign(body, SIGNING_KEY, clock.now_s())
        url = f"http://127.0.0.1:{port}/api/inngest?fnId=slow-nap&stepId=step"
        answers: list[httpx.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(
                client.post(url, content=body, headers={names.SIGNATURE: signature})
            )
        )
        thread.start()
        while not (folder / "napping").exists():
            time.sleep(0.01)
        process.terminate()
        (folder / "wake").touch()
        thread.join()
        process.wait(20)

    assert (answers[0].status_code, answers[0].json()) == (200, "rested")


_SLOW = """
import asyncio
from pathlib import Path
from typing import Any

from stepbase import App, Event, serve

app = App("slow")


@app.function("nap", on="a/b")
async def nap(event: Event[Any]) -> str:
    Path("napping").touch()
    while not Path("wake").exists():
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    return "rested"


main = serve(app)
"""
_CALL = (
    '{"ctx":{"run_id":"01JDFZ0000000000000000000A","attempt":0,"fn_id":"x","env":"production",'
    '"disable_immediate_execution":false,"use_api":false,"stack":{"stack":[],"current":0}},'
    '"event":{"name":"a/b","data":{},"id":"e","ts":1},"events":[{"name":"a/b","data":{},"id":"e","ts":1}],'
    '"steps":{},"version":2,"use_api":false}'
)


async def test_it_syncs_with_an_engine_and_runs_an_award(
    staged: tuple[Path, int], programs: Path, database: str
) -> None:
    settings = Settings(
        database_url=database, port=0, signing_keys=(SIGNING_KEY,), event_keys=(EVENT_KEY,)
    )
    url = f"http://127.0.0.1:{staged[1]}/api/inngest"
    with running_gateway(database) as gateway:
        async with serving(settings) as (_, port, _):
            surroundings = {
                "INNGEST_BASE_URL": f"http://127.0.0.1:{port}",
                "SUPABASE_URL": gateway.url,
                "SUPABASE_SECRET_KEY": gateway.keys.secret,
            }
            running = started(staged, programs, **surroundings)
            process = await asyncio.to_thread(running.__enter__)
            try:
                signature = signing.sign(b"", SIGNING_KEY, clock.now_s())
                async with httpx.AsyncClient() as web:
                    synced = await web.put(url, headers={names.SIGNATURE: signature})
                assert synced.status_code == 200, synced.text
                await _check_registered(port, url)
                assert await _awarded(database) == [("award", "p", 30)]
                assert (
                    megabytes(process) <= MOST_MEGABYTES + 40
                )  # a client of Supabase is loaded now
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)


async def test_an_engine_s_image_answers(tmp_path: Path, database: str) -> None:
    pins = lock.parse((ROOT / lock.FILE).read_text())
    found = staging.stage_engine(ROOT, pins)
    staging.write(tmp_path, found)
    folder = tmp_path / found.folder
    programs = await asyncio.to_thread(bare.environment, folder / "requirements.txt")
    dockerfile = folder / "Dockerfile"
    port = free_port()
    # The image's port is its own; here others may have it.
    dockerfile.write_text(dockerfile.read_text().replace('"8080"', f'"{port}"'))
    given = {
        "DATABASE_URL": database,
        "INNGEST_SIGNING_KEY": SIGNING_KEY,
        "INNGEST_EVENT_KEY": EVENT_KEY,
    }

    process, _ = await asyncio.to_thread(start, folder, given, programs, port)
    try:
        async with httpx.AsyncClient() as web:
            health = await web.get(f"http://127.0.0.1:{port}/health")
            refused = await web.get(f"http://127.0.0.1:{port}/v1/events/x/runs")
    finally:
        await asyncio.to_thread(stop, process)

    assert (health.status_code, refused.status_code, process.returncode) == (200, 401, 0)


async def _check_registered(port: int, url: str) -> None:
    """Compare what the engine has registered with where the app is, and with where it is not."""
    served = Served("currency", "currency", 5, url, f"{url}/health", "d")
    key = {"authorization": f"Bearer {signing.hash_key(SIGNING_KEY)}"}
    action = Verify(served, f"http://127.0.0.1:{port}")
    async with httpx.AsyncClient() as web:
        asked = await web.get(action.registered, headers=key)
    answer = Answer(asked.status_code, {}, asked.content)
    assert verify.is_list(answer)
    assert verify.registered_problems(served, answer) == []
    [moved] = verify.registered_problems(replace(served, url="https://x.example.com"), answer)
    assert f"the server calls currency at {url}" in moved


async def _awarded(database: str) -> list[tuple[str, str, int]]:
    """Pay for a purchase and wait for its transaction."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "insert into public.merchants (id, name, rate_bp, award_delay_hours)"
            " values ('now', 'Now', 250, 0)"
        )
        await connection.execute(
            "insert into public.purchases (id, merchant_id, user_id, amount_cents, status)"
            f" values ('p', 'now', '{_ANN}', 1234, 'paid')"
        )
        async with asyncio.timeout(20):
            while True:
                rows = await connection.fetch(
                    "select kind, source_id, amount from public.wallet_transactions"
                )
                if rows:
                    return [(row["kind"], row["source_id"], row["amount"]) for row in rows]
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
