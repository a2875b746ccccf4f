"""The official TypeScript SDK in a Node process of its own, to send the same requests to.

The SDK comes from npm, as `package-lock.json` pins it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.support.npm import NODE, ROOT, installed
from tests.support.sdk_calls import Reply
from tests.support.sdk_hosts import Ask

SOURCE = ROOT / "tests" / "interop" / "typescript"


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
    folder = installed(SOURCE) / source.relative_to(ROOT / "tests").parts[0]
    folder.mkdir(exist_ok=True)
    for each in source.glob("*.mjs"):
        shutil.copy(each, folder)
    process = subprocess.Popen(
        [NODE, "server.mjs"],
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
