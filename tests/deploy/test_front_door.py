"""The front door in Deno, before the real SDK in cloud mode, which checks every signature."""

import json
import socket
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.repo.tree import ROOT
from tests.support import edge as edge_runtime
from tests.support.edge import Edge, running_edge
from tests.support.fake_api import Received, fake_api
from tests.support.real_hosts import SERVED, serving_asgi
from tests.support.sdk_calls import RUN_ID, call_body, event, hashed

from stepbase import App, DefinitionError, Event, Step, asgi
from stepbase.hosts import front_door
from stepbase.protocol import signing
from stepbase.sdk import http
from stepbase.sdk.version import SDK

KEY = "signkey-test-" + "ab" * 16
PATH = "/currency/api/inngest"  # Supabase's runtime takes /functions/v1 away
VARIABLE = "STEPBASE_ORIGIN_CURRENCY"
INDEX = ROOT / "supabase" / "functions" / "currency" / "index.ts"

app = App("currency")


@app.function("echo", on="a/b")
async def echo(event: Event[dict[str, Any]], step: Step) -> Any:
    """Give the data back, after a step."""
    return await step.run("once", lambda: event.data)


@app.function("waits", on="a/c")
async def waits(event: Event[dict[str, Any]]) -> str:
    """End when the test lets it."""
    import asyncio

    assert await asyncio.to_thread(LET_GO.wait, 20)
    return "at last"


LET_GO = threading.Event()


@pytest.fixture(autouse=True)
async def _cloud(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the SDK ask for signatures, at the URL that the front door has."""
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    monkeypatch.setenv("INNGEST_SERVE_ORIGIN", "https://ref.supabase.co")
    monkeypatch.setenv("INNGEST_SERVE_PATH", "/functions/v1/currency")
    LET_GO.clear()
    yield
    LET_GO.set()
    http.close()
    await http.aclose()


@contextmanager
def front(home: Path, origin: str | None, **variables: str) -> Iterator[Edge]:
    given = {} if origin is None else {VARIABLE: origin}
    with running_edge(INDEX, home, {**given, **variables}) as edge:
        yield edge


def sign(body: bytes = b"") -> dict[str, str]:
    stamp = int(datetime.now(UTC).timestamp())
    return {"x-inngest-signature": signing.sign(body, KEY, stamp), "x-run-id": RUN_ID}


def post(edge: Edge, function: str, body: bytes, **options: Any) -> httpx.Response:
    url = f"{edge.url}{PATH}?fnId=currency-{function}&stepId=step"
    headers = {**sign(body), "content-type": "application/json", **options.pop("headers", {})}
    return httpx.post(url, content=body, headers=headers, timeout=30, **options)


def signed_by_the_host(reply: httpx.Response) -> bool:
    """Say whether the reply's signature is that of the bytes that arrived."""
    now = int(datetime.now(UTC).timestamp())
    header = reply.headers["x-inngest-signature"]
    return signing.verify(header, reply.content, [KEY], now) == KEY


def test_the_repositorys_front_doors_are_what_the_template_gives() -> None:
    doors = {path.parent.name: path for path in INDEX.parents[1].glob("*/index.ts")}
    settings = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())["functions"]

    assert "currency" in doors
    for name, path in doors.items():
        assert path.read_text() == front_door.source(name)
        assert path.stat().st_size < 10_000
        # Servers, who have no user's token, are let in.
        assert tomllib.loads(front_door.settings(name))["functions"][name] == settings[name]


def test_a_front_door_is_written_where_supabase_looks(tmp_path: Path) -> None:
    written = front_door.write("order_tracking-2", tmp_path)
    assert written == tmp_path / "supabase" / "functions" / "order_tracking-2" / "index.ts"
    assert 'const VARIABLE = "STEPBASE_ORIGIN_ORDER_TRACKING_2";' in written.read_text()
    assert front_door.variable("order_tracking-2") == "STEPBASE_ORIGIN_ORDER_TRACKING_2"


@pytest.mark.parametrize("name", ["", "a/b", "../x", "1st", 'a"b', "ä", "a" * 64])
def test_a_name_that_no_edge_function_can_have_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="the name of an Edge Function"):
        front_door.source(name)


def test_it_is_typed_tidy_and_imports_nothing(tmp_path: Path) -> None:
    for command in (("check",), ("lint",), ("fmt", "--check", "--line-width", "110")):
        done = edge_runtime.run(*command, str(INDEX), home=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "import" not in INDEX.read_text()


def test_introspection_is_answered_to_those_who_sign(tmp_path: Path) -> None:
    with serving_asgi(asgi(app)) as origin, front(tmp_path, f"{origin}/") as edge:
        signed = httpx.get(edge.url + PATH, headers=sign())
        unsigned = httpx.get(edge.url + "/functions/v1/currency")

        assert signed.json()["function_count"] == 2
        assert (signed.json()["mode"], signed.json()["authentication_succeeded"]) == ("cloud", True)
        assert signed_by_the_host(signed)
        assert "app_id" not in unsigned.json()


def test_a_sync_reaches_the_server_with_the_front_doors_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        fake_api(lambda _: (200, {"ok": True, "modified": True})) as api,
        serving_asgi(asgi(app)) as origin,
        front(tmp_path, origin) as edge,
    ):
        monkeypatch.setenv("INNGEST_API_BASE_URL", api.url)
        reply = httpx.put(edge.url + PATH, headers={**sign(), "x-inngest-server-kind": "cloud"})

        assert reply.status_code == 200, reply.text
        assert reply.json()["modified"] is True
        [sent] = api.received
        assert sent.body["url"] == "https://ref.supabase.co/functions/v1/currency"
        assert len(sent.body["functions"]) == 2


@pytest.mark.parametrize("host", SERVED)
def test_a_call_is_run_and_its_reply_signed(tmp_path: Path, host: str) -> None:
    body = call_body(event(name="a/b", data={"text": "ä\u2028 <&>", "n": 1.5}))
    with SERVED[host](app, tmp_path, False) as origin, front(tmp_path, origin) as edge:
        reply = post(edge, "echo", body)

        assert reply.status_code == 206, reply.text
        [op] = reply.json()
        assert (op["id"], op["data"]) == (hashed("once"), {"text": "ä\u2028 <&>", "n": 1.5})
        assert reply.headers["x-inngest-sdk"] == SDK
        assert signed_by_the_host(reply)
        [line] = edge.logged()
        assert {**line, "ms": 0} == {
            "app": "currency", "function": "currency-echo", "step": "step", "run": RUN_ID,
            "method": "POST", "status": 206, "ms": 0,
        }  # fmt: skip


def test_a_changed_body_is_refused_by_the_host(tmp_path: Path) -> None:
    body = call_body(event(name="a/b", data={"n": 1}))
    with serving_asgi(asgi(app)) as origin, front(tmp_path, origin) as edge:
        reply = post(edge, "echo", body.replace(b'"n": 1', b'"n": 2'), headers=sign(body))

        assert reply.status_code == 401
        assert reply.json()["code"] == "sig_verification_failed"


def test_a_body_of_megabytes_comes_through(tmp_path: Path) -> None:
    body = call_body(event(name="a/b", data={"text": "x" * 3_500_000}))
    with serving_asgi(asgi(app)) as origin, front(tmp_path, origin) as edge:
        reply = post(edge, "echo", body)

        assert reply.status_code == 206
        assert len(reply.json()[0]["data"]["text"]) == 3_500_000
        assert signed_by_the_host(reply)


def test_a_stream_arrives_bit_by_bit(tmp_path: Path) -> None:
    body = call_body(event(name="a/c"))
    url = f"{PATH}?fnId=currency-waits&stepId=step"
    with serving_asgi(asgi(app, streaming=True)) as origin, front(tmp_path, origin) as edge:
        with httpx.stream("POST", edge.url + url, content=body, headers=sign(body)) as reply:
            # The head is here and the function has not ended: it ends only now.
            assert reply.status_code == 201
            LET_GO.set()
            text = "".join(reply.iter_text())

        inner = json.loads(text)
        assert (inner["status"], json.loads(inner["body"])) == (200, "at last")


def test_a_host_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    body = call_body(event(name="a/c"))
    patience = {"STEPBASE_FRONT_DOOR_SECONDS": "0.5"}
    with serving_asgi(asgi(app)) as origin, front(tmp_path, origin, **patience) as edge:
        reply = post(edge, "waits", body)
        LET_GO.set()

        assert_to_be_retried(reply, 504, "host_timeout")
        assert edge.logged()[0]["status"] == 504


def test_a_host_that_is_away_is_tried_again(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        with front(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}") as edge:
            reply = post(edge, "echo", call_body())

            assert_to_be_retried(reply, 502, "host_away")
            assert "127.0.0.1" not in reply.text
            assert edge.logged()[0]["status"] == 502
            assert any("cannot be reached" in line for line in edge.lines)


@pytest.mark.parametrize("origin", [None, "", "  ", "currency.example.com", "https://"])
def test_without_an_origin_it_says_what_to_set(tmp_path: Path, origin: str | None) -> None:
    with front(tmp_path, origin) as edge:
        reply = post(edge, "echo", call_body())

        assert_to_be_retried(reply, 503, "no_origin")
        assert f"supabase secrets set {VARIABLE}=https://" in reply.json()["error"]


def assert_to_be_retried(reply: httpx.Response, status: int, code: str) -> None:
    """Check that a server takes the answer as nobody's: no function has seen the call."""
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert "x-inngest-sdk" not in reply.headers
    assert "x-inngest-no-retry" not in reply.headers


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/currency", "/base"),
        ("/currency/", "/base/"),
        ("/currency/health?a=1&b=%20c", "/base/health?a=1&b=%20c"),
        ("/functions/v1/currency/x%2Fy", "/base/x%2Fy"),
        ("/currency/../../elsewhere", "/base/elsewhere"),
        ("/currencyx", "/base/currencyx"),
    ],
)
def test_paths_and_headers_are_those_of_the_request(
    tmp_path: Path, asked: str, reached: str
) -> None:
    def answer(_: Received) -> tuple[int, Any]:
        return 200, {"ok": True}

    with fake_api(answer) as api, front(tmp_path, f"{api.url}/base") as edge:
        target = httpx.URL(edge.url).copy_with(raw_path=asked.encode())
        headers = {"authorization": "Bearer t", "x-forwarded-for": "9.9.9.9", "te": "trailers"}
        reply = httpx.post(target, content=b"\x00raw\xff", headers=headers)

        assert reply.json() == {"ok": True}
        [request] = api.received
        assert (request.path, request.content) == (reached, b"\x00raw\xff")
        assert request.headers["authorization"] == "Bearer t"
        assert request.headers["x-forwarded-for"] == "9.9.9.9"
        assert request.headers["accept-encoding"] == "identity"
        assert "te" not in request.headers
        assert request.headers["host"] == api.url.removeprefix("http://")


def test_redirects_and_empty_replies_are_passed_back(tmp_path: Path) -> None:
    class Plain:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            there = [(b"location", b"https://else.where/"), (b"x-more", b"1")]
            status = 204 if scope["path"].endswith("/empty") else 307
            await send({"type": "http.response.start", "status": status, "headers": there})
            await send({"type": "http.response.body", "body": b""})

    with serving_asgi(Plain()) as origin, front(tmp_path, origin) as edge:
        moved = httpx.get(f"{edge.url}/currency/moved")
        empty = httpx.request("OPTIONS", f"{edge.url}/currency/empty")

        assert (moved.status_code, moved.headers["location"]) == (307, "https://else.where/")
        assert (empty.status_code, empty.content, empty.headers["x-more"]) == (204, b"", "1")
