"""docs/troubleshooting.md: five failures made for real; its commands and its pages name cause and fix."""

import asyncio
import html
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from tests.cli.conftest import OTHER_KEY, SIGNING_KEY, Type
from tests.conftest import Connect
from tests.repo.pages import blocks
from tests.repo.test_docs_commands import TROUBLESHOOTING, commands
from tests.support.engine_client import EngineClient
from tests.support.gateway import running_gateway
from tests.support.real_hosts import serving_asgi

from stepbase import App, Event, EventData, Step, asgi
from stepbase.console.site import console
from stepbase.engine.server import serving
from stepbase.engine.settings import Settings
from stepbase.sdk import background, http
from stepbase.supabase import client as supabase

app = App("shop")
_SLOW = 60.0


class Paid(EventData, name="shop/paid"):
    """A payment."""

    order_id: int
    cents: int


@app.function("credit", on=Paid, retries=0)
async def credit(event: Event[Paid], step: Step) -> None:
    """Call an SQL function that refuses."""
    await step.rpc("add_credit", {"p_order_id": event.data.order_id})


@app.function("large", on=Paid.where("event.data.cents > 10000"), retries=0)
async def large(event: Event[Paid], step: Step) -> None:
    """Only for large payments."""


@dataclass
class Place:
    """An engine with its console, and the app that it calls."""

    api: EngineClient
    web: httpx.AsyncClient
    engine_url: str

    async def page(self, path: str) -> str:
        """Return what a page says."""
        answer = await self.web.get(path)
        assert answer.status_code == 200, answer.text
        return html.unescape(answer.text)


Start = Callable[..., AbstractAsyncContextManager[Place]]


@pytest.fixture
def start(database: str, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start engine and console: `async with start(signing_keys=…) as place`."""

    @asynccontextmanager
    async def run(**changes: Any) -> AsyncIterator[Place]:
        settings = Settings(
            database_url=database,
            port=0,
            retry_interval=_SLOW,
            lease=timedelta(seconds=5),
            **changes,
        )
        keys = changes.get("signing_keys", ())
        headers = {"authorization": f"Bearer {keys[0]}"} if keys else {}
        async with (
            serving(settings, console) as (_, port, _),
            aiohttp.ClientSession() as session,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, headers=headers
            ) as web,
        ):
            url = f"http://127.0.0.1:{port}"
            monkeypatch.setenv("DATABASE_URL", database)
            monkeypatch.setenv("INNGEST_BASE_URL" if keys else "INNGEST_DEV", url)
            if keys:
                monkeypatch.setenv("INNGEST_SIGNING_KEY", keys[0])
                monkeypatch.setenv("INNGEST_EVENT_KEY", changes["event_keys"][0])
            yield Place(EngineClient(session, url, keys[0] if keys else None), web, url)
        supabase.close()
        await supabase.aclose()
        await http.aclose()
        http.close()
        background.stop()

    return run


async def sync(origin: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as web:
        answer = await web.put(f"{origin}/api/inngest")
    assert answer.status_code == 200, answer.text


async def is_said(type_in: Type, text: str, *words: str) -> str:
    """Repeat a command until it says something."""
    out = ""
    async with asyncio.timeout(30):
        while text not in out:
            out = (await type_in(*words)).out
    return out


async def test_an_sql_function_raises(
    start: Start, connect: Connect, database: str, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await connect()).execute(
        "create function public.add_credit(p_order_id int) returns void language plpgsql as"
        " $$ begin raise exception 'the wallet is closed'; end $$;"
        "grant execute on function public.add_credit(int) to service_role"
    )
    with running_gateway(database) as gateway, serving_asgi(asgi(app)) as origin:
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        async with start() as place:
            await sync(origin)
            event = (await type_in("send", "shop/paid", '{"order_id": 7, "cents": 5}')).out.strip()
            run = await place.api.result(event)

            listed = await type_in("runs", "--status", "failed")
            traced = await type_in("trace", run["run_id"])
            page, home = await place.page(f"/runs/{run['run_id']}"), await place.page("/")

    assert run["run_id"] in listed.out and "the wallet is closed" in listed.out
    for text in ("add_credit", "attempt 0 of", "the wallet is closed", "P0001"):
        assert text in traced.out, traced.out
    assert run["run_id"] in home
    for text in ("add_credit", "Attempt 0 failed", "the wallet is closed", "P0001", "Run again"):
        assert text in page, text


async def test_the_host_cannot_be_reached(start: Start, type_in: Type) -> None:
    async with start() as place:
        with serving_asgi(asgi(app)) as origin:
            await sync(origin)
        await type_in("send", "shop/paid", '{"order_id": 7, "cents": 5}')

        listed = await is_said(type_in, "due at", "runs")
        run_id = listed.splitlines()[1].split()[0]
        traced = await type_in("trace", run_id)
        doctor = await type_in("doctor")
        page, apps = await place.page(f"/runs/{run_id}"), await place.page("/apps")

    assert "shop-credit" in listed
    assert "NoAnswer: " in traced.out and "Connect" in traced.out, traced.out
    assert "now: due at" in traced.out, traced.out
    assert doctor.code == 1 and f"app shop: {origin}/api/inngest: does not answer" in doctor.out
    assert "due at" in page and "NoAnswer" in page
    assert origin in apps and "Sync" in apps


async def test_the_signature_is_wrong_after_a_rotation(
    start: Start, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"signing_keys": (SIGNING_KEY,), "event_keys": ("ek",)}
    async with start(**keys) as place:
        with serving_asgi(asgi(app)) as origin:
            monkeypatch.setenv("INNGEST_SERVE_ORIGIN", origin)
            await sync(origin)
        # The host comes back with the new key, which the engine does not have.
        monkeypatch.setenv("INNGEST_SIGNING_KEY", OTHER_KEY)
        with serving_asgi(asgi(app), int(origin.rpartition(":")[2])):
            await type_in("send", "shop/paid", '{"order_id": 7, "cents": 5}')
            listed = await is_said(type_in, "due at", "runs")
            # The operator has the engine's environment, the host's process has read its own.
            run_id = listed.splitlines()[1].split()[0]
            page = await place.page(f"/runs/{run_id}")
            traced = await type_in("trace", run_id)
            doctor = await type_in("doctor", "--json")
            wrong_key = await type_in("cancel", run_id)

    for text in (traced.out, page):
        assert "HTTP 401" in text and "check that INNGEST_SIGNING_KEY here and on" in text
    assert "now: due at" in traced.out
    found = {each["what"]: each for each in doctor.data}
    assert found["engine"]["state"] == "broken"
    assert "INNGEST_SIGNING_KEY is not one of its keys" in found["engine"]["text"]
    assert wrong_key.code == 1


async def test_a_payload_does_not_fit_its_model(start: Start, type_in: Type) -> None:
    with serving_asgi(asgi(app)) as origin:
        async with start() as place:
            await sync(origin)
            event = (await type_in("send", "shop/paid", '{"order_id": "seven"}')).out.strip()
            run = await place.api.result(event)

            listed = await type_in("events", "--id", event)
            traced = await type_in("trace", run["run_id"])
            page = await place.page(f"/runs/{run['run_id']}")

    assert "shop-credit Failed" in listed.out
    for text in ("order_id", "cents"):
        assert text in traced.out, traced.out
        assert text in page
    assert "seven" in page  # the event stands beside the error


async def test_an_event_starts_nothing(start: Start, type_in: Type) -> None:
    with serving_asgi(asgi(app)) as origin:
        async with start() as place:
            await sync(origin)
            typo = (await type_in("send", "shop/payed", "{}")).out.strip()
            small = (await type_in("send", "shop/paid", '{"order_id": 7, "cents": 5}')).out.strip()

            listed = await type_in("events", "--not-started")
            functions = await type_in("functions")
            page, types = await place.page(f"/events/{small}"), await place.page("/event-types")

    assert typo in listed.out and "compare stepbase functions" in listed.out
    assert "event shop/paid" in functions.out
    assert "event shop/paid if event.data.cents > 10000" in functions.out
    assert "shop-large" in page and "Its condition was not met: event.data.cents > 10000" in page
    assert "shop/payed" in types


def test_the_page_has_the_commands_that_are_shown_to_help() -> None:
    typed = {
        c.split()[1] for b in blocks(TROUBLESHOOTING) if b.language == "bash" for c in commands(b)
    }
    source = Path(__file__).read_text("utf-8")

    assert typed >= {"runs", "trace", "events", "functions", "doctor", "rerun"}
    for name in typed - {"rerun"}:  # tests/cli/test_actions.py does
        assert f'"{name}"' in source, name
