"""`stepbase relay` as a process of its own, to be killed, stopped and started again."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class RelayProcess:
    """One relay; what it logs is appended to `log`."""

    def __init__(
        self,
        dsn: str,
        origin: str,
        log: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-P", "-m", "stepbase.cli", "relay", *options]
        self._environment = {
            **os.environ,
            "DATABASE_URL": dsn,
            "SUPABASE_URL": "https://test.supabase.co",
            "INNGEST_EVENT_API_BASE_URL": origin,
            "INNGEST_EVENT_KEY": "key",
            **(environment or {}),
        }
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def start(self) -> dict[str, object]:
        """Start the process; return what it says when it is ready."""
        self.launch()
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        ready: dict[str, object] = json.loads(line)
        return ready

    @property
    def is_running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._end("kill")

    def stop(self) -> int:
        """End it by SIGTERM; return its exit code."""
        return self._end("terminate")

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        assert self._process is not None
        code = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def _end(self, how: str) -> int:
        assert self._process is not None
        getattr(self._process, how)()
        return self.wait()


@contextmanager
def relays(*processes: RelayProcess) -> Iterator[None]:
    """Start relays; those that are still running at the end are killed."""
    try:
        for each in processes:
            each.start()
        yield
    finally:
        for each in processes:
            if each.is_running:
                each.kill()
