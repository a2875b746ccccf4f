"""The folder `emit` as a process of its own under gunicorn, and behind a front door on the edge."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.support.auth_server import ALICE, sign
from tests.support.edge import running_edge
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.real_hosts import serving_asgi

from stepbase import accept_events
from stepbase.hosts import front_door
from stepbase.sdk.accepting import own_event_id
from stepbase.supabase import client

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "functions" / "emit"
OPENED = {"name": "app/offer.opened", "data": {"merchant_id": "m1", "offer": "tea"}}
START_SECONDS = 20


@pytest.fixture
def gateway(database: str) -> Iterator[RunningGateway]:
    """The REST API in front of `database`; its legacy secret signs users' tokens."""
    with running_gateway(database, size=4) as running:
        yield running


@pytest.fixture
async def shop(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


def token(gateway: RunningGateway) -> str:
    return gateway.keys.user_token(ALICE, iss=f"{gateway.url}/auth/v1")


def variables(gateway: RunningGateway) -> dict[str, str]:
    return {
        "SUPABASE_URL": gateway.url,
        "SUPABASE_SECRET_KEY": gateway.keys.secret,
        "SUPABASE_JWT_SECRET": gateway.keys.jwt_secret,
        "STEPBASE_ALLOWED_ORIGINS": "https://app.example.com",
    }


@contextmanager
def deployed(gateway: RunningGateway, *options: str) -> Iterator[str]:
    """Run the folder as its image does; yields its origin once it is healthy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "functions_framework", "--target", "main", "--host", "127.0.0.1",
         "--port", str(port), *options],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": str(ROOT / "shared"), **variables(gateway)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    origin = f"http://127.0.0.1:{port}"
    try:
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                assert httpx.get(f"{origin}/health").json() == {"status": "ok"}
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < give_up, "it does not start"
                time.sleep(0.05)  # nothing tells when another's process listens
        yield origin
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("options", [(), ("--asgi",)], ids=["gunicorn", "gunicorn --asgi"])
async def test_a_process_of_its_own_takes_events_however_they_come(
    gateway: RunningGateway, shop: asyncpg.Connection, options: tuple[str, ...]
) -> None:
    headers = {
        "authorization": f"Bearer {token(gateway)}",
        "content-type": "application/json; charset=utf-8",
    }
    body = json.dumps({**OPENED, "id": "one"}).encode()

    with deployed(gateway, *options) as origin:
        whole = httpx.post(origin, content=body, headers=headers)
        chunks = httpx.post(origin, content=iter([body[:9], body[9:]]), headers=headers)
        large = httpx.post(origin, content=iter([b" " * 50_000] * 2), headers=headers)

    assert (whole.status_code, chunks.status_code) == (202, 202), chunks.text
    assert (
        whole.json() == chunks.json() == {"ids": [own_event_id(ALICE, "app/offer.opened", "one")]}
    )
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert await shop.fetchval("select count(*) from stepbase.outbox") == 1


async def test_pages_send_through_a_front_door(
    gateway: RunningGateway,
    shop: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables(gateway).items():
        monkeypatch.setenv(name, value)
    index = front_door.write("emit", tmp_path)
    page = {"origin": "https://app.example.com"}
    # What supabase.functions.invoke("emit", { body }) sends.
    sent = {
        **page,
        "authorization": f"Bearer {token(gateway)}",
        "apikey": gateway.keys.publishable,
        "x-client-info": "supabase-js/2.80.0",
        "content-type": "application/json",
    }
    target = accept_events("app/offer.opened")
    with (
        serving_asgi(target.asgi) as origin,
        running_edge(index, tmp_path, {"STEPBASE_ORIGIN_EMIT": origin}) as edge,
    ):
        asked = httpx.options(
            f"{edge.url}/emit",
            headers={
                **page,
                "access-control-request-method": "POST",
                "access-control-request-headers": "apikey,authorization,content-type,x-client-info",
            },
        )
        accepted = httpx.post(f"{edge.url}/emit", json=OPENED, headers=sent)
        nobody = httpx.post(f"{edge.url}/emit", json=OPENED, headers=page)
        health = httpx.get(f"{edge.url}/emit/health")
    client.close()
    await client.aclose()

    allowed = asked.headers["access-control-allow-headers"].split(", ")
    assert asked.status_code == 204
    assert {"apikey", "authorization", "content-type", "x-client-info"} <= set(allowed)
    assert accepted.status_code == 202, accepted.text
    assert accepted.headers["access-control-allow-origin"] == page["origin"]
    assert (nobody.status_code, nobody.json()["code"]) == (401, "no_token")
    assert nobody.headers["www-authenticate"] == "Bearer"
    assert health.json() == {"status": "ok"}
    assert await shop.fetchval("select name from stepbase.outbox") == "app/offer.opened"


def test_a_token_of_the_real_auth_servers_form_is_believed(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Supabase's auth server writes them for a session: all of its claims, and a key id with HS256."""
    for name, value in variables(gateway).items():
        monkeypatch.setenv(name, value)
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": f"{gateway.url}/auth/v1", "sub": ALICE, "aud": "authenticated", "exp": now + 3600,
        "iat": now, "email": "a@example.com", "phone": "", "role": "authenticated", "aal": "aal1",
        "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {"sub": "x"},
        "amr": [{"method": "password", "timestamp": now}], "session_id": ALICE, "is_anonymous": False,
    }  # fmt: skip
    bearer = sign(gateway.keys.jwt_secret, claims, kid="9mSFAbPPwMFJcLIH")
    target = accept_events("app/offer.opened", claims=("aal", "app_metadata"))
    with serving_asgi(target.asgi) as origin:
        answer = httpx.post(origin, json=OPENED, headers={"authorization": f"Bearer {bearer}"})

    assert answer.status_code == 202, answer.text
