"""EncryptionMiddleware beside the official `inngest-encryption` package: each reads what the other wrote."""

import datetime
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import fastapi
import inngest
import pytest
from tests.support import mini_server
from tests.support.fake_api import FakeApi, Received, fake_api
from tests.support.mini_server import Run
from tests.support.sdk_calls import Reply, call_body, event, hashed
from tests.support.sdk_hosts import Ask, ask_asgi

from stepbase import App, Event, Step, SyncStep, asgi
from stepbase.middleware import EncryptionMiddleware
from stepbase.sdk import http

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still writes pydantic as before version 2
    import inngest.fast_api
    import inngest_encryption

KEY = "a passphrase"
OLD_KEY = bytes(range(32)).hex().encode()
SECRET = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    def answer(request: Received) -> tuple[int, Any]:
        return 200, {"ids": [f"id-{i}" for i, _ in enumerate(request.body)], "status": 200}

    with fake_api(answer) as running:
        monkeypatch.setenv("INNGEST_DEV", running.url)
        yield running


@pytest.fixture(autouse=True)
async def _close() -> AsyncIterator[None]:
    yield
    await http.aclose()
    http.close()


def ours(key: str | bytes = KEY, *, is_sync: bool = False, **options: Any) -> Ask:
    """Return our function."""
    app = App("bank", middleware=[EncryptionMiddleware.factory(key, **options)])

    async def pay(event: Event[dict[str, Any]], step: Step) -> Any:
        card = await step.run("read card", lambda: {"card": SECRET, "of": event.data["encrypted"]})
        await step.sleep("wait", "1s")
        total = await step.run("charge", lambda: 1.5)
        sent = await step.send_event("tell", Event("bank/paid", {"n": 1, "encrypted": card}))
        return [card, total, sent, None]

    def pay_sync(event: Event[dict[str, Any]], step: SyncStep) -> Any:
        card = step.run("read card", lambda: {"card": SECRET, "of": event.data["encrypted"]})
        step.sleep("wait", "1s")
        total = step.run("charge", lambda: 1.5)
        sent = step.send_event("tell", Event("bank/paid", {"n": 1, "encrypted": card}))
        return [card, total, sent, None]

    app.function("pay", on="bank/pay")(pay_sync if is_sync else pay)
    return ask_asgi(asgi(app))


def theirs(key: str | bytes = KEY, **options: Any) -> Ask:
    """Return the same function on the official package."""
    client = inngest.Inngest(
        app_id="bank",
        is_production=False,
        middleware=[inngest_encryption.EncryptionMiddleware.factory(key, **options)],
    )

    @client.create_function(fn_id="pay", trigger=inngest.TriggerEvent(event="bank/pay"))
    async def pay(ctx: inngest.Context) -> Any:
        async def read() -> Any:
            return {"card": SECRET, "of": ctx.event.data["encrypted"]}

        async def charge() -> float:
            return 1.5

        card: Any = await ctx.step.run("read card", read)
        await ctx.step.sleep("wait", datetime.timedelta(seconds=1))
        total = await ctx.step.run("charge", charge)
        paid = inngest.Event(name="bank/paid", data={"n": 1, "encrypted": card})
        sent = await ctx.step.send_event("tell", paid)
        return [card, total, sent, None]

    application = fastapi.FastAPI()
    inngest.fast_api.serve(application, client, [pay])
    return ask_asgi(application)


async def run(asks: Sequence[Ask], data: dict[str, Any]) -> Run:
    """Finish a run, its calls answered in turn."""
    calls = 0

    async def post(query: str, body: bytes) -> Reply:
        nonlocal calls
        calls += 1
        return await asks[(calls - 1) % len(asks)]("POST", query=query, body=body)

    return await mini_server.finish(post, "bank-pay", event(name="bank/pay", data=data))


def opened(value: Any, key: str = KEY) -> Any:
    """Decrypt with the official package."""
    client = inngest.Inngest(app_id="bank", is_production=False)
    return inngest_encryption.EncryptionMiddleware(client, None, key)._decrypt(value)


def sealed(value: Any, key: str | bytes = KEY) -> Any:
    """Encrypt with the official package."""
    client = inngest.Inngest(app_id="bank", is_production=False)
    return inngest_encryption.EncryptionMiddleware(client, None, key)._encrypt(value)


OUTPUT = [{"card": SECRET, "of": "jo"}, 1.5, ["id-0"], None]


@pytest.mark.parametrize(
    "hosts",
    [
        [ours],
        [lambda: ours(is_sync=True)],
        [ours, theirs],
        [theirs, ours],
        [theirs, lambda: ours(is_sync=True)],
    ],
    ids=["ours", "ours, sync", "ours and theirs", "theirs and ours", "theirs and ours, sync"],
)
async def test_a_run_goes_on_at_the_other(hosts: list[Callable[[], Ask]], api: FakeApi) -> None:
    done = await run([make() for make in hosts], {"encrypted": sealed("jo")})

    assert opened(done.output) == OUTPUT
    assert opened(done.memos[hashed("read card")]["data"]) == OUTPUT[0]
    for reply in done.replies:
        assert b"4111 1111" not in reply.content
    (sent,) = api.received[0].body
    assert sent["data"]["n"] == 1 and opened(sent["data"]["encrypted"]) == OUTPUT[0]


async def test_the_form_is_theirs() -> None:
    first = event(name="bank/pay", data={"encrypted": sealed("jo")})
    body = call_body(first)
    query = "fnId=bank-pay&stepId=step"
    mine = (await ours()("POST", query=query, body=body)).op["data"]
    their = (await theirs()("POST", query=query, body=body)).op["data"]

    assert {**mine, "data": ""} == {**their, "data": ""}
    assert list(mine) == list(their)


@pytest.mark.parametrize("old", [OLD_KEY, "an older passphrase"])
async def test_keys_can_be_changed_while_runs_are_under_way(old: str | bytes) -> None:
    fallback: dict[str, Any] = {"fallback_keys": [old]}
    their_fallback: dict[str, Any] = {"fallback_decryption_keys": [old]}
    hosts = [ours(old), theirs(KEY, **their_fallback), ours(KEY, **fallback)]
    done = await run(hosts, {"encrypted": sealed("jo", old)})

    assert opened(done.output) == OUTPUT


async def test_ours_opens_an_event_that_is_encrypted_as_a_whole() -> None:
    done = await run([ours()], sealed({"encrypted": "jo"}))

    assert opened(done.output) == OUTPUT


async def test_decrypt_only_sends_everything_readable(api: FakeApi) -> None:
    done = await run([ours(decrypt_only=True)], {"encrypted": sealed("jo")})

    assert done.output == OUTPUT
    assert api.received[0].body[0]["data"]["encrypted"] == OUTPUT[0]
