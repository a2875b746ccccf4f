"""Runs a PostgreSQL server of our own: for `stepbase dev`, the demo, the benchmarks and the tests.

The server is a child started directly (no pg_ctl), so it is stopped by the very pid that was
started, and a watchdog takes it down if this process is killed. Whoever calls this need not know
whether they are root, which version is installed or where its files are.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from stepbase import clock, config
from stepbase.local.account import Account, scratch_folder, server_account
from stepbase.local.binaries import Binaries, find_binaries
from stepbase.local.errors import PostgresStartError
from stepbase.local.watchdog import Watchdog

_START_SECONDS = 60.0
_POLL_SECONDS = 0.01
_PORT_TRIES = 3
# For tests alone: a crash of the machine may lose everything, one of the server still nothing (so
# synchronous_commit stays on: commits reach the operating system, but nobody waits for the disk).
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
# A socket's path may have 107 bytes on Linux and 103 on macOS.
_LONGEST_SOCKET_FOLDER = 80


class Cluster:
    """A PostgreSQL cluster in a data folder, and its server.

    Without a `folder` it is throwaway: it lives in a temporary folder and `close` removes it.
    `port` None means a unix socket only, 0 a free loopback port (kept over restarts), else that
    port. `durable=False` is for tests only. `preload` becomes shared_preload_libraries, `settings`
    any other server settings. Use as a context manager, or call `start` and `close`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        durable: bool = True,
        preload: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        self.binaries = binaries or find_binaries(config.pg_bin())
        self._account: Account = server_account()
        self._given = folder
        self._home: Path | None = None
        self._wanted_port = port
        self.port: int | None = port or None
        self._settings = {
            **({} if durable else _NOT_DURABLE),
            **({"shared_preload_libraries": ",".join(preload)} if preload else {}),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog = Watchdog()

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server; a throwaway cluster disappears."""
        self.close()

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise RuntimeError("the cluster is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def died(self) -> bool:
        """Whether the server ended though nobody stopped it."""
        return self._process is not None and self._process.poll() is not None

    @property
    def home(self) -> Path:
        """The folder that holds the data, the log and the socket."""
        if self._home is None:
            raise RuntimeError("the cluster was never started")
        return self._home

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.home / "postgres.log"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return the connection string for `database`.

        Over TCP it carries the cluster's random password; the socket's folder admits its owner
        only.
        """
        name = quote(database, safe="")
        if self.port is None:
            return f"postgresql://{quote(user)}@/{name}?host={quote(str(self._socket_folder))}"
        return f"postgresql://{quote(user)}:{self._password()}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Create the cluster where there is none and start the server; returns when it is ready.

        Raises:
            PostgresStartError: with the end of the server's log.
        """
        if self.running:
            return
        try:
            self._prepare()
            self._start()
        except BaseException:
            self.close()
            raise

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start again, on the same port; `immediate` is a crash (see `stop`)."""
        self.stop(immediate=immediate)
        self._start()

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server: clients are cut off and transactions rolled back.

        `immediate` skips the shutdown checkpoint, as a crash would: the next start recovers from
        the log, and unlogged tables come back empty.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        signals = [signal.SIGQUIT] if immediate else [signal.SIGINT, signal.SIGQUIT]
        for number in signals:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
                break
        else:
            process.kill()
            process.wait()
        self._watchdog.release(process.pid)

    def close(self) -> None:
        """Stop the server and, if the cluster is throwaway, remove every trace of it."""
        self.stop(immediate=self._given is None)
        if self._given is None and self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
        self._watchdog.close()

    # -- preparing -------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._home is None:
            self._home = self._given_home() if self._given else scratch_folder(self._account)
            if self._given is None:
                self._watchdog.guard_folder(self._home)
        if not self._account.reaches(self.binaries.folder / "postgres"):
            self.binaries = self.binaries.copy_to(self._home)
        if not (self._data / "PG_VERSION").exists():
            self._initdb()
        self._check_version()
        socket_folder = self._socket_folder
        if socket_folder is not None:
            socket_folder.mkdir(mode=0o700, exist_ok=True)
            self._account.own(socket_folder)

    def _given_home(self) -> Path:
        """Return the given folder, or where its link leads if the server could not reach it.

        A project under /root cannot be entered by the account root's server runs as; its data then
        lives in /var/tmp and the given folder is a link to it.
        """
        assert self._given is not None
        folder = self._given.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            if not folder.is_symlink() and self._account.reaches(folder.parent):
                folder.mkdir(mode=0o700)
            else:
                folder.unlink(missing_ok=True)
                target = Path("/var/tmp") / f"stepbase-{secrets.token_hex(6)}"
                target.mkdir(mode=0o700)
                folder.symlink_to(target)
            self._account.own(folder)
        return folder.resolve()

    def _initdb(self) -> None:
        password = self.home / "password"
        password.write_text(secrets.token_urlsafe(24))
        password.chmod(0o600)
        self._account.own(password)
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        self._account.own(self._data)
        answer = self._run(
            [
                self.binaries.initdb,
                f"--pgdata={self._data}",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8" if self._has_c_utf8() else "--locale=C",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                f"--pwfile={password}",
                *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
            ]
        )
        if answer.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise PostgresStartError(f"initdb failed: {answer.stderr.strip() or answer.stdout}")

    def _has_c_utf8(self) -> bool:
        locales = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout
        return bool(re.search(r"^C\.utf-?8$", locales, re.IGNORECASE | re.MULTILINE))

    def _check_version(self) -> None:
        major = (self._data / "PG_VERSION").read_text().strip()
        if major != str(self.binaries.major):
            raise PostgresStartError(
                f"{self._data} was made by PostgreSQL {major}, but {self.binaries.folder} is "
                f"version {self.binaries.major}: remove the folder to start afresh, "
                f"or set PG_BIN to binaries of version {major}"
            )

    @property
    def _data(self) -> Path:
        return self.home / "data"

    @property
    def _socket_folder(self) -> Path | None:
        folder = self.home / "socket"
        return folder if len(str(folder)) <= _LONGEST_SOCKET_FOLDER else None

    def _password(self) -> str:
        return (self.home / "password").read_text()

    # -- starting --------------------------------------------------------------------------------

    def _start(self) -> None:
        tries = _PORT_TRIES if self._wanted_port == 0 and self.port is None else 1
        for left in reversed(range(tries)):
            if self._wanted_port is not None:
                self.port = self.port or _free_port()
            try:
                self._launch()
            except PostgresStartError:
                if not left:
                    raise
                self.port = None
            else:
                return

    def _launch(self) -> None:
        options = {
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "port": str(self.port or 5432),
            "unix_socket_directories": str(self._socket_folder or ""),
            **self._settings,
        }
        command = [self.binaries.postgres, "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches the whole process group: the server must be stopped
                # last, by us.
                start_new_session=True,
                **self._account.popen_arguments(),  # type: ignore[call-overload]  # by name
            )
        self._watchdog.guard(self._process.pid, "QUIT" if self._given is None else "INT")
        self._wait_until_ready(begin)

    def _wait_until_ready(self, log_begin: int) -> None:
        process = self._process
        assert process is not None
        give_up = clock.monotonic() + _START_SECONDS
        while not self._reports_ready(process.pid):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_POLL_SECONDS)
            if process.poll() is not None or clock.monotonic() > give_up:
                self.stop(immediate=True)
                raise PostgresStartError(
                    f"PostgreSQL did not start: {self._log_tail(log_begin)} (log: {self.log})"
                )

    def _reports_ready(self, pid: int) -> bool:
        """Read the server's own pid file: its first line is the pid, its eighth the state."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _log_tail(self, begin: int) -> str:
        with self.log.open("rb") as file:
            file.seek(begin)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-5:]) or "no log"

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        answer: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            **self._account.popen_arguments(),  # type: ignore[call-overload]  # by name
        )
        return answer


def is_in_use(folder: Path) -> bool:
    """Say whether a server runs on the cluster in `folder`."""
    try:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
