"""Children of a benchmark: started, waited for, and stopped by the pid that was started."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str, seconds: float = 20) -> None:
    """Wait until something answers at a URL."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def child(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a process for the length of the block."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONSAFEPATH": "1", **(env or {})},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _module(name: str, report: Path | None) -> tuple[str, ...]:
    """Return what runs a module, under the sampler if there is to be a report."""
    if report is None:
        return (sys.executable, "-m", name)
    return (sys.executable, str(ROOT / "bench/support/sampled.py"), str(report), name)


@contextlib.contextmanager
def engine(
    dsn: str, *options: str, report: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run an engine; yields its URL and its process. `report`: where its CPU time went (`sampled.py`)."""
    command = (*_module("stepbase.cli", report), "engine", "--port", "0", "--database-url", dsn)
    with child(*command, "--log-level", "WARNING", *options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = json.loads(line)["port"]
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def uvicorn_process(
    module: str,
    engine_url: str,
    path: str = "/api/inngest",
    *,
    workers: int = 1,
    report: Path | None = None,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve `module:attribute` with uvicorn in dev mode; yields its serve URL and its process."""
    port = free_port()
    command = (*_module("uvicorn", report), module, "--port", str(port))
    if workers > 1:
        command += ("--workers", str(workers))
    env = {"INNGEST_DEV": engine_url, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"}
    with child(*command, "--log-level", "warning", "--no-access-log", env=env) as process:
        url = f"http://127.0.0.1:{port}{path}"
        wait_for(url)
        yield url, process


@contextlib.contextmanager
def uvicorn_host(module: str, engine_url: str, path: str = "/api/inngest") -> Iterator[str]:
    """Serve `module:attribute` with uvicorn in dev mode; yields its serve URL."""
    with uvicorn_process(module, engine_url, path) as (url, _):
        yield url


def put(url: str) -> dict[str, object]:
    """Sync an app: `PUT` its serve URL and return what it answers."""
    request = urllib.request.Request(url, method="PUT", data=b"")
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, object] = json.load(response)
        return answer


def printed_json(*command: str) -> dict[str, float]:
    """Run a script and return the JSON of its last line."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{done.stderr[-2000:]}")
    last: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return last


@contextlib.contextmanager
def bare_host() -> Iterator[str]:
    """Serve the floor's function."""
    port = free_port()
    with child(sys.executable, "bench/floor.py", "host", str(port)):
        url = f"http://127.0.0.1:{port}/"
        wait_for(url)
        yield url
