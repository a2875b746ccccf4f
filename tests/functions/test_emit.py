"""The folder `emit` as it is deployed: real servers, real tokens, a real database."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg
import functions_framework
import functions_framework.aio
import httpx
import pytest
from tests.support.auth_server import ALICE, BOB, AuthServer, auth_server
from tests.support.fake_api import Received
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.real_hosts import serving_asgi, serving_wsgi

from stepbase import DefinitionError, RateLimit, accept_events
from stepbase.local import host
from stepbase.sdk.accepting import own_event_id
from stepbase.supabase import client

FOLDER = Path(__file__).parents[2] / "functions" / "emit"
RATED = {"name": "app/purchase.rated", "data": {"source_id": "order-1", "stars": 5}}
OPENED = {"name": "app/offer.opened", "data": {"merchant_id": "m1", "offer": "tea"}}


@pytest.fixture
def project(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthServer]:
    """A project: the auth server's keys and the REST API at one URL, in front of `database`."""
    with running_gateway(database, size=6) as gateway, auth_server() as server:
        server.api.answer = _with_rest(server, gateway)
        monkeypatch.setenv("SUPABASE_URL", server.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        yield server
        client.close()


def _with_rest(server: AuthServer, gateway: RunningGateway) -> Any:
    publish = server.api.answer

    def answer(request: Received) -> tuple[int, Any]:
        if request.path.startswith("/auth/"):
            return publish(request)
        headers = {k: v for k, v in request.headers.items() if k not in ("host", "content-length")}
        reply = httpx.request(
            request.method, gateway.url + request.path, headers=headers, content=request.content
        )
        return reply.status_code, reply.content

    return answer


@pytest.fixture
async def shop(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    connection.terminate()


@contextmanager
def _framework(is_asgi: bool) -> Iterator[str]:
    create: Any = functions_framework.create_app
    if is_asgi:
        create = functions_framework.aio.create_asgi_app
    sys.modules.pop("main", None)
    with mock.patch.dict("os.environ"):
        application = create("main", str(FOLDER / "main.py"))
    with (serving_asgi if is_asgi else serving_wsgi)(application) as origin:
        yield origin


@contextmanager
def _dev_host(_: bool) -> Iterator[str]:
    with serving_asgi(host.load(FOLDER.parent, tolerant=False)) as origin:
        yield f"{origin}/emit"


HOSTS: dict[str, Any] = {
    "functions-framework": lambda: _framework(False),
    "functions-framework --asgi": lambda: _framework(True),
    "stepbase host": lambda: _dev_host(True),
}


@pytest.fixture(params=HOSTS)
def origin(request: pytest.FixtureRequest, project: AuthServer) -> Iterator[str]:
    """Where the folder is served, by each host."""
    with HOSTS[request.param]() as url:
        yield url


@pytest.fixture
def one_host(project: AuthServer) -> Iterator[str]:
    """Where the folder is served, where the host makes no difference."""
    with _framework(False) as url:
        yield url


def post(url: str, body: Any, token: str | None, **headers: str) -> httpx.Response:
    given = {"content-type": "application/json", **headers}
    if token is not None:
        given["authorization"] = f"Bearer {token}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(url, content=content, headers=given)


async def outbox(shop: asyncpg.Connection) -> list[dict[str, Any]]:
    rows = await shop.fetch("select id, payload from stepbase.outbox order by created_at, id")
    return [json.loads(row["payload"]) for row in rows]


# -- what is accepted --------------------------------------------------------------------------------


async def test_an_event_is_in_the_outbox_before_it_is_answered(
    origin: str, project: AuthServer, shop: asyncpg.Connection
) -> None:
    answer = post(origin, {**RATED, "id": "r-1"}, project.token())

    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json() == {"ids": [own_event_id(ALICE, "app/purchase.rated", "r-1")]}
    [event] = await outbox(shop)
    assert event["id"] == answer.json()["ids"][0]
    assert event["name"] == "app/purchase.rated"
    assert event["data"] == {"source_id": "order-1", "stars": 5, "comment": None}
    assert event["user"] == {"id": ALICE, "role": "authenticated"}


async def test_a_list_is_accepted_as_a_whole_or_not_at_all(
    origin: str, project: AuthServer, shop: asyncpg.Connection
) -> None:
    bad = {**RATED, "data": {"source_id": "x", "stars": 6}}

    refused = post(origin, [RATED, bad], project.token())
    assert refused.status_code == 422
    assert refused.json() == {
        "error": "[1].data.stars: Input should be less than or equal to 5",
        "code": "invalid_data",
        "fields": [{"field": "[1].data.stars", "error": "Input should be less than or equal to 5"}],
    }
    assert await outbox(shop) == []

    accepted = post(origin, [RATED, OPENED], project.token())
    assert accepted.status_code == 202
    stored = await outbox(shop)
    assert {e["id"]: e["name"] for e in stored} == dict(
        zip(accepted.json()["ids"], (RATED["name"], OPENED["name"]), strict=True)
    )


async def test_nobody_can_take_anothers_id(
    one_host: str, project: AuthServer, shop: asyncpg.Connection
) -> None:
    for user in (ALICE, BOB, ALICE):
        assert post(one_host, {**RATED, "id": "same"}, project.token(user=user)).status_code == 202

    assert [event["user"]["id"] for event in await outbox(shop)] == [ALICE, BOB]


async def test_the_user_is_the_tokens_and_nobody_elses(
    one_host: str, project: AuthServer, shop: asyncpg.Connection
) -> None:
    forged = post(one_host, {**RATED, "user": {"id": BOB}}, project.token())

    assert (forged.status_code, forged.json()["code"]) == (400, "invalid_event")
    assert "taken from the token" in forged.json()["error"]
    assert await outbox(shop) == []


# -- who is not a user -------------------------------------------------------------------------------


def test_each_way_of_being_nobody_is_told_apart(origin: str, project: AuthServer) -> None:
    now_over = project.token(exp=1)
    cases = [
        (None, 401, "no_token", "Bearer"),
        ("sb_publishable_0123456789abcdef", 401, "api_key_is_no_user", "Bearer error="),
        (now_over, 401, "token_expired", "Bearer error="),
        (project.token(iss="https://x/auth/v1"), 401, "issuer_not_accepted", "Bearer error="),
        (project.token(is_anonymous=True), 403, "anonymous_not_allowed", "Bearer error="),
    ]
    for token, status, code, challenge in cases:
        answer = post(origin, RATED, token)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["www-authenticate"].startswith(challenge)
        assert token is None or token[8:24] not in answer.text + str(answer.headers)


def test_an_unknown_caller_learns_nothing_of_what_may_be_sent(
    one_host: str, project: AuthServer
) -> None:
    for body in (b"{", {"name": "currency/award.requested"}, RATED):
        assert post(one_host, body, None).json()["code"] == "no_token"


def test_only_what_is_listed_may_be_sent(one_host: str, project: AuthServer) -> None:
    answer = post(one_host, {"name": "currency/award.requested", "data": {}}, project.token())

    assert (answer.status_code, answer.json()["code"]) == (403, "event_not_allowed")
    assert "app/purchase.rated, app/offer.opened" in answer.json()["error"]


def test_an_auth_server_that_is_away_is_not_the_clients_fault(
    one_host: str, project: AuthServer, caplog: pytest.LogCaptureFixture
) -> None:
    project.answer = (503, {})

    answer = post(one_host, RATED, project.token())
    [line] = [each for each in caplog.records if each.message == "tokens cannot be checked"]
    assert "HTTP 503" in line.__dict__["reason"]

    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
    assert answer.headers["retry-after"] == "5"


# -- the form of requests ----------------------------------------------------------------------------


def test_large_bodies_are_refused_however_they_come(origin: str, project: AuthServer) -> None:
    bearer = {"authorization": f"Bearer {project.token()}", "content-type": "application/json"}
    large = b" " * 70_000

    whole = httpx.post(origin, content=large, headers=bearer)
    just = httpx.post(origin, content=json.dumps(RATED).encode().ljust(64 * 1024), headers=bearer)

    assert (whole.status_code, whole.json()["code"]) == (413, "body_too_large")
    assert just.status_code == 202


def test_a_body_without_a_length_is_read_no_further_than_it_may_be(
    project: AuthServer,
) -> None:
    bearer = {"authorization": f"Bearer {project.token()}", "content-type": "application/json"}

    with _framework(True) as origin:
        small = httpx.post(origin, content=iter([json.dumps(RATED).encode()]), headers=bearer)
        large = httpx.post(origin, content=iter([b" " * 40_000] * 4), headers=bearer)

    assert small.status_code == 202
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(origin: str, method: str) -> None:
    answer = httpx.request(method, origin)

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_types_are_refused(one_host: str, project: AuthServer, kind: str) -> None:
    answer = post(one_host, RATED, project.token(), **{"content-type": kind})

    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")


# -- the rate ----------------------------------------------------------------------------------------


def test_a_rate_holds_for_a_user_across_hosts(project: AuthServer) -> None:
    target = accept_events("app/seen", rate_limit=RateLimit(30, "1h"), max_events=10)
    alice, bob = project.token(), project.token(user=BOB)
    with serving_asgi(target.asgi) as first, serving_asgi(target.asgi) as second:

        def send(i: int) -> httpx.Response:
            return post(first if i % 2 else second, {"name": "app/seen"}, alice)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, range(60)))

        assert sum(answer.status_code == 202 for answer in answers) == 30
        over = next(answer for answer in answers if answer.status_code == 429)
        assert over.json()["code"] == "rate_limited"
        assert "more than 30 events in 1:00:00" in over.json()["error"]
        assert 100 < int(over.headers["retry-after"]) <= 120
        assert post(first, {"name": "app/seen"}, bob).status_code == 202
        many = post(first, [{"name": "app/seen"}] * 11, bob)
        assert (many.status_code, many.json()["code"]) == (413, "too_many_events")


async def test_what_an_endpoint_is_told_to_let_through_it_does(
    project: AuthServer, shop: asyncpg.Connection
) -> None:
    target = accept_events(
        "app/seen",
        rate_limit=None,
        claims=("email", "session_id", "nothing"),
        roles=("authenticated", "staff"),
        allow_anonymous=True,
    )
    with serving_asgi(target.asgi) as origin:
        for token in (project.token(role="staff"), project.token(user=BOB, is_anonymous=True)):
            assert post(origin, {"name": "app/seen"}, token).status_code == 202

    said = {"email": "alice@example.com", "session_id": "5e5510"}
    assert [event["user"] for event in await outbox(shop)] == [
        {**said, "id": ALICE, "role": "staff"},
        {**said, "id": BOB, "role": "authenticated", "is_anonymous": True},
    ]
    assert await shop.fetchval("select count(*) from stepbase.sender_rates") == 0


# -- pages -------------------------------------------------------------------------------------------


def test_pages_of_the_allowed_origins_may_send(
    origin: str, project: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "https://app.example.com"
    monkeypatch.setenv("STEPBASE_ALLOWED_ORIGINS", f"{page}, https://other.example.com/")

    asked = httpx.options(origin, headers={"origin": page, "access-control-request-method": "POST"})
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == page
    assert asked.headers["access-control-allow-credentials"] == "true"
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert asked.headers["vary"] == "origin"

    for answer in (
        post(origin, RATED, project.token(), origin=page),
        post(origin, RATED, None, origin=page),
    ):
        assert answer.headers["access-control-allow-origin"] == page
        assert "retry-after" in answer.headers["access-control-expose-headers"]

    for other in ("https://evil.example.com", "null", "http://app.example.com", f"{page}.evil.com"):
        for answer in (
            httpx.options(origin, headers={"origin": other}),
            post(origin, RATED, project.token(), origin=other),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
            assert "access-control-allow-origin" not in answer.headers


def test_any_page_may_send_where_that_is_said_but_never_with_cookies(project: AuthServer) -> None:
    target = accept_events("app/seen", origins=["*"])
    with serving_asgi(target.asgi) as origin:
        answer = post(origin, {"name": "app/seen"}, project.token(), origin="https://any.where")

    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_without_origins_no_page_is_let_in_and_no_client_kept_out(
    one_host: str, project: AuthServer
) -> None:
    answer = post(one_host, RATED, project.token(), origin="https://app.example.com")

    assert answer.status_code == 202
    assert not [name for name in answer.headers if name.startswith("access-control")]


# -- when something is not there ---------------------------------------------------------------------


def test_health_says_whether_it_can_work(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert httpx.get(f"{origin}/health").json() == {"status": "ok"}
    assert httpx.head(f"{origin}/health").status_code == 200
    monkeypatch.setenv("STEPBASE_DEPLOYMENT", "0123456789ab")
    assert httpx.get(f"{origin}/health").json()["deployment"] == "0123456789ab"


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("SUPABASE_URL", "SUPABASE_URL is not set"),
        ("SUPABASE_SECRET_KEY", "no Supabase secret key"),
    ],
)
def test_an_endpoint_that_is_not_set_up_says_so(
    project: AuthServer, monkeypatch: pytest.MonkeyPatch, missing: str, says: str
) -> None:
    token = project.token()
    monkeypatch.delenv(missing)
    with _framework(False) as origin:
        health = httpx.get(f"{origin}/health")
        answer = post(origin, RATED, token)

    assert health.status_code == 503
    assert says in health.json()["error"]
    assert (answer.status_code, answer.json()["code"]) == (500, "not_set_up")
    assert missing not in answer.text


@pytest.mark.parametrize(
    "wrong", ["app.example.com", "https://a.example.com,https://b/c", "https://"]
)
def test_an_origin_that_would_never_match_is_not_let_pass(
    one_host: str, project: AuthServer, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("STEPBASE_ALLOWED_ORIGINS", wrong)

    health = httpx.get(f"{one_host}/health")
    answer = post(one_host, RATED, project.token(), origin="https://app.example.com")

    assert health.status_code == 503
    assert "is no origin: write https://app.example.com" in health.json()["error"]
    assert (answer.status_code, answer.json()["code"]) == (500, "not_set_up")
    with pytest.raises(DefinitionError, match="is no origin"):
        accept_events("app/seen", origins=wrong.split(","))


@pytest.mark.parametrize("is_asgi", [False, True])
def test_a_database_that_is_away_is_503(project: AuthServer, is_asgi: bool) -> None:
    publish = project.api.answer
    answers: list[tuple[int, Any]] = [
        (503, {"code": "PGRST000", "message": "Could not connect", "details": "secret-host"}),
        (500, {"code": "40P01", "message": "deadlock detected"}),
        (502, b"<html>bad gateway</html>"),
    ]

    def answer(request: Received) -> tuple[int, Any]:
        return publish(request) if request.path.startswith("/auth/") else answers[0]

    project.api.answer = answer
    with _framework(is_asgi) as origin:
        while answers:
            reply = post(origin, RATED, project.token())
            assert (reply.status_code, reply.json()["code"]) == (503, "unavailable"), reply.text
            assert reply.headers["retry-after"] == "1"
            assert "secret-host" not in reply.text
            answers.pop(0)


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"code": "PGRST202", "message": "Could not find the function"}),
        (401, {"code": None, "message": "Invalid API key"}),
        (200, {"other": "version"}),
    ],
)
def test_a_database_without_the_function_is_not_set_up(
    project: AuthServer, answer: tuple[int, Any], caplog: pytest.LogCaptureFixture
) -> None:
    publish = project.api.answer
    project.api.answer = lambda r: publish(r) if r.path.startswith("/auth/") else answer
    token = project.token()
    with _framework(False) as origin:
        reply = post(origin, RATED, token)

    assert (reply.status_code, reply.json()["code"]) == (500, "not_set_up")
    [record] = [r for r in caplog.records if r.name == "stepbase.hosts.events"]
    assert record.levelname == "ERROR"
    assert token[:20] not in str(vars(record)) and "order-1" not in str(vars(record))


async def test_words_of_the_database_about_an_event_reach_the_client(project: AuthServer) -> None:
    target = accept_events("app/seen", max_bytes=8_000_000)
    with serving_asgi(target.asgi) as origin:
        large = {"name": "app/seen", "data": {"text": "x" * 3_300_000}}
        reply = post(origin, large, project.token())

    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_event")
    assert "3145728" in reply.json()["error"]
