"""Schemas of events in a sync: told to our engine only, bounded, and never a reason to refuse anything."""

from datetime import UTC, datetime
from types import new_class
from typing import Any

import pytest
from pydantic import Field
from tests.support.fake_api import Received, fake_api
from tests.support.sdk_hosts import ask_asgi

from stepbase import App, CancelOn, Event, EventData, asgi
from stepbase.errors import ProtocolError
from stepbase.protocol import signing
from stepbase.protocol.schemas import MAX_SCHEMA_BYTES, decode_schemas
from stepbase.sdk import http, registration
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.http import Answer
from stepbase.sdk.message import Request
from stepbase.sdk.schemas import schemas_of

KEY = "signkey-test-" + "ab" * 16
OURS = {"x-stepbase": "engine"}


class OrderPlaced(EventData, name="shop/order.placed"):
    order_id: int = Field(alias="id", ge=1)


class OrderCancelled(EventData, name="shop/order.cancelled"):
    id: int


class Callbacks(EventData, name="shop/callbacks"):
    call: Any = None
    kind: type[int] = int  # a type has no JSON schema


Wide: type[Any] = new_class(
    "Wide", (EventData,), {"name": "shop/wide"},
    lambda body: body.update(__annotations__={f"a_long_name_of_a_field_{i}": int for i in range(300)}),
)  # fmt: skip

app = App("shop")


@app.function("place", on=OrderPlaced, cancel_on=CancelOn(OrderCancelled))
async def place(event: Event[OrderPlaced]) -> None: ...


@app.function("plain", on="shop/anything")
async def plain() -> None: ...


async def registered(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], headers: dict[str, str], body: bytes = b""
) -> list[Received]:
    """PUT the endpoint; return what it registered."""
    with fake_api(lambda _: (200, {"ok": True})) as api:
        monkeypatch.setenv("INNGEST_BASE_URL", api.url)
        for name, value in {"INNGEST_SERVE_ORIGIN": "https://a.example", **env}.items():
            monkeypatch.setenv(name, value)
        await ask_asgi(asgi(app))("PUT", body=body, headers=headers)
        await http.aclose()
        return api.received


def test_events_that_start_or_cancel_are_told_with_their_class() -> None:
    told = schemas_of(app.functions.values())

    assert told["shop-plain"] == {}
    placed = told["shop-place"]["shop/order.placed"]
    assert placed["model"] == "OrderPlaced"
    assert placed["schema"] == OrderPlaced.model_json_schema()
    assert told["shop-place"]["shop/order.cancelled"]["model"] == "OrderCancelled"


def test_what_is_too_large_or_has_none_is_left_out_with_a_note() -> None:
    odd = App("odd")
    odd.function("wide", on=Wide)(_nothing)
    odd.function("kind", on=Callbacks)(_nothing)

    told = schemas_of(odd.functions.values())

    wide, kind = told["odd-wide"]["shop/wide"], told["odd-kind"]["shop/callbacks"]
    assert "schema" not in wide and f"more than {MAX_SCHEMA_BYTES}" in str(wide["note"])
    assert "schema" not in kind and "no JSON schema" in str(kind["note"])


async def _nothing() -> None: ...


async def test_only_a_server_that_says_it_is_ours_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    dev = {"INNGEST_DEV": "1"}

    [other] = await registered(monkeypatch, dev, {})
    [ours] = await registered(monkeypatch, dev, OURS)

    assert "stepbase" not in other.body
    assert ours.body["stepbase"]["schemas"] == schemas_of(app.functions.values())
    assert {**ours.body, "stepbase": None} == {**other.body, "stepbase": None}


async def test_in_cloud_mode_only_a_signed_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = {"INNGEST_SIGNING_KEY": KEY}
    body = b'{"url":"https://a.example/api/inngest"}'
    signature = signing.sign(body, KEY, int(datetime.now(UTC).timestamp()))

    [unsigned] = await registered(monkeypatch, cloud, OURS)
    signed = await registered(monkeypatch, cloud, {**OURS, "x-inngest-signature": signature}, body)

    assert "stepbase" not in unsigned.body
    assert "stepbase" in signed[0].body


async def test_in_band_they_are_in_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    monkeypatch.setenv("INNGEST_SERVE_ORIGIN", "https://a.example")
    body = b'{"url":"https://a.example/api/inngest"}'
    signature = signing.sign(body, KEY, int(datetime.now(UTC).timestamp()))
    headers = {"x-inngest-signature": signature, "x-inngest-sync-kind": "in_band"}

    other = await ask_asgi(asgi(app))("PUT", body=body, headers=headers)
    ours = await ask_asgi(asgi(app))("PUT", body=body, headers={**headers, **OURS})

    assert "stepbase" not in other.body and "schemas" in ours.body["stepbase"]


@pytest.mark.parametrize(
    "raw",
    [{"schemas": []}, {"schemas": {"f": 1}}, {"schemas": {"f": {"e": []}}},
     {"schemas": {"f": {"e": {"model": "M", "schema": 1}}}}],
)  # fmt: skip
def test_what_is_no_schema_is_refused_with_its_place(raw: object) -> None:
    with pytest.raises(ProtocolError, match=r"stepbase\.schemas"):
        decode_schemas(raw)


def test_what_others_send_is_kept_within_the_same_bounds() -> None:
    large = {"properties": {"x": {"description": "y" * 20_000}}}
    raw = {"schemas": {"f": {"e": {"model": "M", "schema": large}, "g": {"model": "N"}}}}

    assert decode_schemas(None) is None and decode_schemas({"other": 1}) is None
    decoded = decode_schemas(raw)
    assert decoded is not None
    assert "schema" not in decoded["f"]["e"] and "more than" in str(decoded["f"]["e"]["note"])
    assert decoded["f"]["g"] == {"model": "N", "note": "it has none"}
    many = {str(i): {"model": "M", "schema": {"title": "x" * 16_000}} for i in range(40)}
    noted = [each for each in (decode_schemas({"schemas": {"f": many}}) or {})["f"].values()
             if "note" in each]  # fmt: skip
    assert 5 < len(noted) < 10


class _SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a message")


class Hostile(EventData, name="shop/hostile"):
    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        raise _SilentError


@pytest.mark.parametrize("event", [Hostile, OrderPlaced])
def test_a_sync_that_was_taken_is_done_whatever_becomes_of_the_schemas(
    event: type[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    shop = App("shop")
    shop.function("f", on=event)(_nothing)
    request = Request(
        method="PUT", url="http://a.example/api/inngest", query="", headers={}, body=b""
    )
    script = registration.sync(Endpoint(shop, framework="x").site, request, None, None)

    next(script)
    with pytest.raises(StopIteration) as done:
        script.send(Answer(200, OURS, b'{"ok":true}'))
        script.send(Answer(0, {}, b"no answer"))

    assert (done.value.value.status, done.value.value.body) == (200, b'{"ok":true}')
    assert "event schemas were not t" in caplog.text
