"""The requests the real server made for functions, and a server that answers ours as they were answered."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.raw_http import Asked, RawServer, raw_server, response
from tests.support.recordings import load

_RECORDED_AT = "127.0.0.1:19200"
_TRANSPORT = ("host", "user-agent", "connection", "accept-encoding", "content-length")


@dataclass(frozen=True)
class Aim:
    """Where requests go that were recorded at another address."""

    server: RawServer

    def at(self, recorded: Any) -> Any:
        """Return a recording whose requests go to this server."""
        text = json.dumps(recorded).replace(_RECORDED_AT, f"127.0.0.1:{self.server.port}")
        return json.loads(text)

    def made(self) -> list[dict[str, Any]]:
        """Return what was asked, in an order of its own."""
        return _ordered(
            {"method": a.method, "path": a.path, "headers": _kept(a.headers), "body": a.body}
            for a in self.server.asked
        )


@asynccontextmanager
async def aimed() -> AsyncIterator[Aim]:
    """Serve the recorded answers."""
    answers = {
        each["request"]["path"]: response(
            each["response"]["status"],
            each["response"]["body"],
            *(": ".join(header) for header in each["response"]["headers"]),
        )
        for each in load("gateway-and-ai-outbound-requests.json")
    }

    def reply(asked: Asked) -> bytes:
        return answers[asked.path]

    async with raw_server(reply) as server:
        yield Aim(server)


def requests_recorded() -> list[dict[str, Any]]:
    """Return what the real server asked."""
    return _ordered(
        {
            **{name: each["request"][name] for name in ("method", "path")},
            "headers": _kept(dict(each["request"]["headers"])),
            "body": json.dumps(each["request"]["body"]),
        }
        for each in load("gateway-and-ai-outbound-requests.json")
    )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    named = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in named.items() if name not in _TRANSPORT}


def _ordered(requests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    parsed = [{**each, "body": json.loads(each["body"])} for each in requests]
    return sorted(parsed, key=lambda each: (each["path"], json.dumps(each["body"], sort_keys=True)))
