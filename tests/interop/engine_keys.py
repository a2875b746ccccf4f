"""What was recorded in the self-hosted mode with keys, played to our engine."""

from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web
from tests.interop.engine_plays import START_MODE, engine_and_stage, play, play_api, playback_of
from tests.support.engine_client import EngineClient
from tests.support.recordings import Found, differing, load, served_at
from tests.support.stub_host import StubHost

from stepbase import clock
from stepbase.protocol import signing
from stepbase.protocol.jsontext import dumps_bytes

KEY = "0123456789abcdef0123456789abcdef"
EVENT_KEY = "evkey123"
SYNC = "27-start-mode-sync-PUT-from-server.json"
REGISTER = "28-start-mode-POST-fn-register.json"
SIGNED = "29-start-mode-signed-call.json"


async def play_keys(database: str) -> dict[str, Found]:
    """Play it all."""
    keys = {"signing_keys": (KEY,), "event_keys": (EVENT_KEY,)}
    token = signing.hash_key(KEY)
    async with engine_and_stage(database, token, **keys) as (client, stage, host):
        found = {
            REGISTER: await _register(client, host),
            START_MODE: await play(client, stage, START_MODE, playback_of(START_MODE)),
            SYNC: await _sync(client),
            SIGNED: _signed(load(SIGNED)["request"]),
        }
        assert all(_is_signed(headers, raw) for headers, raw in host.requests)
        async with aiohttp.ClientSession() as session:
            anyone = EngineClient(session, client.url)
            return found | await play_api(anyone, client, "api-start-mode-auth.json", host.port)


async def _register(client: EngineClient, host: StubHost) -> Found:
    recorded = load(REGISTER)
    headers = {
        name: value
        for name, value in recorded["request"]["headers"]
        if name.lower().startswith(("x-", "auth"))
    }
    body = served_at(host.port, recorded["request"]["body"])
    status, answer = await client.request("POST", "/fn/register", body, headers)
    return differing(
        {"status": status, "body": answer},
        {key: recorded["response"][key] for key in ("status", "body")},
    )


async def _sync(client: EngineClient) -> Found:
    """Let the engine ask an app to register itself."""
    recorded = load(SYNC)
    asked: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((dict(request.headers), await request.read()))
        return web.json_response(recorded["response"]["body"])

    app = web.Application()
    app.router.add_put("/api/inngest", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/inngest"
    status, body = await client.request("PUT", "/fn/sync", {"url": url})
    await runner.cleanup()
    [(headers, raw)] = asked
    theirs = _seen(dict(recorded["request"]["headers"]), recorded["request"]["body"])
    theirs["url"] = url
    ours = _seen(headers, {"url": raw.decode().partition('"url":"')[2].rstrip('"}')})
    return differing(
        {**ours, "is_signed": _is_signed(headers, raw), "status": status, "body": body},
        {**theirs, "is_signed": True, "status": 200, "body": recorded["response"]["body"]},
    )


def _seen(headers: dict[str, str], body: Any) -> dict[str, Any]:
    named = {name.lower(): value for name, value in headers.items()}
    kept = {name: value for name, value in named.items() if name.startswith("x-")}
    kept["x-inngest-signature"] = "present" if "x-inngest-signature" in kept else "absent"
    return {"headers": kept, "url": body["url"]}


def _is_signed(headers: Mapping[str, str], raw: bytes) -> bool:
    given = {name.lower(): value for name, value in headers.items()}.get("x-inngest-signature")
    return signing.verify(given, raw, (KEY,), clock.now_s()) != ""


def _signed(request: dict[str, Any]) -> Found:
    """Sign a recorded call at the time it was signed at."""
    theirs = dict(request["headers"])["X-Inngest-Signature"]
    at = int(theirs.partition("t=")[2].partition("&")[0])
    body = signing.canonical_json(dumps_bytes(request["body"]))
    return differing({"signature": signing.sign(body, KEY, at)}, {"signature": theirs})
