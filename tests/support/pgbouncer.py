"""A real PgBouncer in front of a server: this machine's, or Debian's package unpacked."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import debian

_SECONDS = 10


@dataclass(frozen=True)
class PgBouncer:
    """The program, and where the libraries are that it brings along."""

    program: Path
    libraries: Path | None = None

    @contextmanager
    def serving(self, folder: Path, dsn: str, mode: str) -> Iterator[str]:
        """Pool connections to a server; `mode` is "session" or "transaction". Yields the DSN to use."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        server = urlsplit(dsn)
        config = folder / f"{mode}.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}"
            f" user={server.username} password={server.password}\n"
            "[pgbouncer]\nauth_type = any\nlisten_addr = 127.0.0.1\nunix_socket_dir =\n"
            f"listen_port = {port}\npool_mode = {mode}\ndefault_pool_size = 20\n"
            + ("user = nobody\n" if os.geteuid() == 0 else "")
        )
        env = {"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries else {}
        with (folder / f"{mode}.log").open("w") as log:
            child = subprocess.Popen([self.program, config], stderr=log, stdout=log, env=env)
        try:
            _wait_for(port, child)
            yield dsn.replace(f":{server.port}/", f":{port}/")
        finally:
            child.terminate()
            child.wait()


def _wait_for(port: int, child: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _SECONDS
    while child.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError(f"pgbouncer did not start; exit code {child.poll()}")


def find(folder: Path) -> PgBouncer | None:
    """Return this machine's, or one unpacked in `folder`; None where neither can be had."""
    program = shutil.which("pgbouncer")
    if program is not None:
        return PgBouncer(Path(program))
    files = debian.fetched(folder, "pgbouncer", "libevent-2.1-7", "libc-ares2")
    if files is None:
        return None
    [library] = files.rglob("libevent-2.1.so.7")
    return PgBouncer(files / "usr/sbin/pgbouncer", library.parent)
