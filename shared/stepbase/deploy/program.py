"""Runs a program to its end, in a group of its own that ends with it, and shows what it prints."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stepbase.deploy.errors import DeployError

MOST_SECONDS = 3600.0
"""Of one program. Builds and migrations may take long; one that waits for somebody would take forever."""
_PATIENCE_SECONDS = 10.0


def run_program(
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    given: str | None,
    show: Callable[[str], None],
    most_seconds: float = MOST_SECONDS,
) -> int:
    """Run a program and return its exit code; `show` gets each line that is not empty.

    Args:
        given: What it reads, or None for nothing at all: nobody can be asked.

    Raises:
        DeployError: If it cannot be started, or does not end in time.
    """
    try:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that what it has started ends with it
        )
    except OSError as error:
        raise DeployError(f"{argv[0]} cannot be run: {error.strerror}") from error
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        _signal(process, signal.SIGKILL)

    timer = threading.Timer(most_seconds, end)
    timer.daemon = True
    timer.start()
    try:
        _follow(process, given, show)
        code = process.wait()
    except BaseException:
        stop(process)
        raise
    finally:
        timer.cancel()
        assert process.stdout is not None
        process.stdout.close()
    if overdue.is_set():
        raise DeployError(f"{argv[0]} took more than {most_seconds:.0f} s and was ended")
    return code


def _follow(
    process: "subprocess.Popen[str]", given: str | None, show: Callable[[str], None]
) -> None:
    assert process.stdout is not None
    if given is not None:
        assert process.stdin is not None
        try:
            process.stdin.write(given)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended, and its exit code says why
    for line in process.stdout:
        if line.strip():
            show(line.rstrip())


def stop(process: "subprocess.Popen[str]") -> None:
    """End a program and what it has started: first politely."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: "subprocess.Popen[str]", number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass  # all of them have ended
