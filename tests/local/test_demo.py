"""`stepbase demo` as a person runs it: it ends with OK, and leaves nothing behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = (sys.executable, "-P", "-m", "stepbase.cli", "demo")


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder for whatever the demo makes; its server's account may enter it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def start(place: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo with its temporary files in `place`."""
    return subprocess.Popen(
        [*DEMO, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes(place: Path) -> list[int]:
    """Return the processes whose temporary files are in `place`: the demo and its children."""
    mark = f"TMPDIR={place}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what the demo prints up to a line with `text`."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError(f"never printed {text!r}: {''.join(seen)}")


def test_demo_ends_with_ok_and_leaves_nothing_behind(place: Path) -> None:
    process = start(place, "--sample", "40")
    output, _ = process.communicate(timeout=100)

    lines = output.splitlines()
    assert process.returncode == 0, output
    assert lines[-1].startswith("OK")
    assert sum("kill -9" in line for line in lines) == 2
    assert list(place.iterdir()) == []
    assert processes(place) == []


def test_demo_prints_one_json_object_on_stdout_when_asked(tmp_path: Path, place: Path) -> None:
    data = tmp_path / "mine.txt"
    data.write_text("00001 0001 19970101 1 10.00\n00002 0002 19970101 1 0.00\n")
    answer = subprocess.run(
        [*DEMO, "--data", str(data), "--all", "--json"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=100,
    )

    report = json.loads(answer.stdout)
    assert answer.returncode == 0, answer.stderr
    assert report["ok"] is True
    assert report["totals"]["purchases"] == 2
    assert "OK" in answer.stderr


@pytest.mark.parametrize("moment", ["starting:", "kill -9"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_leaves_nothing_behind_when_it_is_interrupted(
    place: Path, moment: str, number: signal.Signals
) -> None:
    process = start(place, "--sample", "100")
    read_until(process, moment)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 130, output
    assert "interrupted" in output
    assert list(place.iterdir()) == []
    assert processes(place) == []


def test_demo_says_which_line_of_the_data_is_wrong(tmp_path: Path) -> None:
    data = tmp_path / "mine.txt"
    data.write_text("00001 0001 19970101 1 10.00\nnothing\n")

    answer = subprocess.run([*DEMO, "--data", str(data)], capture_output=True, text=True, cwd=ROOT)

    assert answer.returncode == 2
    assert "mine.txt:2: expected" in answer.stderr
