"""Edge Functions in the Deno that Supabase's edge runtime is compatible with (2.1).

Its program comes from npm as `tests/deploy/deno/package-lock.json` pins it. On other platforms than Linux on
x64: the `deno` on the PATH.
"""

import functools
import json
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.npm import ROOT, installed

_SOURCE = ROOT / "tests" / "deploy" / "deno"


@functools.cache
def deno() -> Path:
    """Return the program."""
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return installed(_SOURCE) / "node_modules" / "@deno" / "linux-x64-glibc" / "deno"
    found = shutil.which("deno")
    assert found, "install Deno: https://docs.deno.com/runtime/getting_started/installation"
    return Path(found)


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Deno to its end; nothing is fetched."""
    return subprocess.run(
        [deno(), *arguments],
        env=_environment(home),
        capture_output=True,
        text=True,
        timeout=60,
    )


@dataclass
class Edge:
    """A running Edge Function.

    Attributes:
        url: Its origin.
        lines: What it has logged so far, but for the port.
    """

    url: str
    lines: list[str] = field(default_factory=list)
    _said: threading.Condition = field(default_factory=threading.Condition)

    def logged(self, status: int | None = None) -> list[dict[str, Any]]:
        """Return the JSON lines it has logged, once there is one, or one of a status."""

        def found() -> list[dict[str, Any]]:
            return [json.loads(line) for line in self.lines if line.startswith("{")]

        def is_there() -> bool:
            return any(status in (None, line["status"]) for line in found())

        with self._said:
            assert self._said.wait_for(is_there, 10), self.lines
            return found()

    def hear(self, said: IO[str]) -> None:
        """Keep what it says, to the end."""
        for line in said:
            with self._said:
                self.lines.append(line.rstrip())
                self._said.notify_all()


@contextmanager
def running_edge(index: Path, home: Path, variables: Mapping[str, str]) -> Iterator[Edge]:
    """Run an `index.ts` with these variables until the block ends."""
    process = subprocess.Popen(
        [
            deno(), "run", "--no-remote", "--allow-env", "--allow-net", f"--allow-read={ROOT},{home}",
            _SOURCE / "edge.ts", index.resolve().as_uri(),
        ],
        env={**_environment(home), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            assert first.startswith('{"port"'), first + (process.stdout.read() if not first else "")
            edge = Edge(f"http://127.0.0.1:{json.loads(first)['port']}")
            reader = threading.Thread(target=edge.hear, args=(process.stdout,), daemon=True)
            reader.start()
            yield edge
        finally:
            process.kill()
            process.wait()
            reader.join(5)


def _environment(home: Path) -> dict[str, str]:
    return {
        "DENO_DIR": str(home / ".deno"),
        "DENO_NO_UPDATE_CHECK": "1",
        "HOME": str(home),
        "NO_COLOR": "1",
        "PATH": os.environ["PATH"],
    }
