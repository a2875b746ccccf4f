"""Who may do what through the gateway: keys, tokens, roles, row level security."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from tests.support.gateway import RunningGateway, running_gateway

from stepbase import clock
from stepbase.local.gateway.auth import Keys

ALICE = "11111111-1111-4111-8111-111111111111"
BOB = "22222222-2222-4222-8222-222222222222"


def ask(
    gateway: RunningGateway, path: str, *, key: str | None, token: str | None = None, **more: Any
) -> httpx.Response:
    headers = {} if key is None else {"apikey": key}
    headers |= {} if token is None else {"authorization": f"Bearer {token}"}
    headers |= more.pop("headers", {})
    method = "POST" if "json" in more else "GET"
    return httpx.request(method, f"{gateway.url}/rest/v1{path}", headers=headers, **more)


def whoami(gateway: RunningGateway, key: str, token: str | None = None) -> dict[str, Any]:
    answer = ask(gateway, "/rpc/whoami", key=key, token=token, json={})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("key", "role", "timeout"),
    [
        ("publishable", "anon", "3s"),
        ("anon", "anon", "3s"),
        ("secret", "service_role", "8s"),
        ("service_role", "service_role", "8s"),
    ],
)
@pytest.mark.parametrize("bearer", [False, True])
def test_keys_stand_for_roles(
    gateway: RunningGateway, key: str, role: str, timeout: str, bearer: bool
) -> None:
    value = getattr(gateway.keys, key)

    who = whoami(gateway, value, value if bearer else None)

    assert (who["user"], who["role"], who["timeout"]) == (role, role, timeout)
    assert who["session"] == "authenticator"


def test_a_users_token_wins_over_the_key(gateway: RunningGateway) -> None:
    who = whoami(gateway, gateway.keys.publishable, gateway.keys.user_token(ALICE))

    assert (who["user"], who["uid"], who["timeout"]) == ("authenticated", ALICE, "8s")


def test_rows_are_seen_by_their_owner_only(things: None, gateway: RunningGateway) -> None:
    key = gateway.keys.publishable
    alice, bob = (gateway.keys.user_token(user) for user in (ALICE, BOB))

    for token, text in ((alice, "a"), (bob, "b")):
        written = ask(gateway, "/notes", key=key, token=token, json={"text": text})
        assert written.status_code == 201, written.text
    forged = ask(gateway, "/notes", key=key, token=bob, json={"text": "x", "owner": ALICE})

    assert [n["text"] for n in ask(gateway, "/notes", key=key, token=alice).json()] == ["a"]
    assert [n["text"] for n in ask(gateway, "/notes", key=key, token=bob).json()] == ["b"]
    assert (forged.status_code, forged.json()["code"]) == (403, "42501")
    # The service role bypasses row level security; anon has no grant at all.
    assert len(ask(gateway, "/notes", key=gateway.keys.secret).json()) == 2
    assert ask(gateway, "/notes", key=key).status_code == 401


def test_column_grants_hold(things: None, gateway: RunningGateway) -> None:
    key = gateway.keys.publishable

    allowed = ask(gateway, "/things?select=id,name&limit=1", key=key)
    refused = ask(gateway, "/things?select=secret", key=key)
    by_filter = ask(gateway, "/things?select=id&secret=eq.hidden", key=key)

    assert allowed.json() == [{"id": 1, "name": "ant"}]
    for answer in (refused, by_filter):
        assert (answer.status_code, answer.json()["code"]) == (401, "42501")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_functions_need_a_grant(gateway: RunningGateway) -> None:
    # A function that PostgreSQL puts into a cached plan must not carry its permission along.
    for _ in range(20):
        assert ask(gateway, "/rpc/big_int", key=gateway.keys.secret, json={}).status_code == 200

    allowed = ask(gateway, "/rpc/add", key=gateway.keys.publishable, json={"a": 1})
    refused = ask(gateway, "/rpc/big_int", key=gateway.keys.publishable, json={})
    as_user = ask(
        gateway,
        "/rpc/big_int",
        key=gateway.keys.publishable,
        token=gateway.keys.user_token(ALICE),
        json={},
    )

    assert allowed.json() == 11
    assert refused.status_code == 401
    assert as_user.status_code == 403


def make_token(secret: str, algorithm: str = "HS256", **claims: Any) -> str:
    payload = {"role": "authenticated", "sub": ALICE, "exp": clock.now_s() + 60, **claims}
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, secret, algorithm)


REFUSED_TOKENS: list[tuple[str, Any, str, str]] = [
    ("expired", lambda k: k.user_token(ALICE, lifetime=-60), "PGRST303", "JWT expired"),
    ("not yet", lambda k: make_token(k.jwt_secret, nbf=clock.now_s() + 600), "PGRST303", "not yet"),
    ("other secret", lambda k: make_token("x" * 40), "PGRST301", "decoded"),
    ("no signature", lambda k: make_token("", "none"), "PGRST301", "decoded"),
    ("no token", lambda k: "abc", "PGRST301", "decoded"),
    ("a key of another project", lambda k: "sb_secret_" + "x" * 32, "PGRST301", "decoded"),
    ("the secret key as a token", lambda k: k.secret, "PGRST301", "decoded"),
]


@pytest.mark.parametrize(
    ("make", "code", "message"), [t[1:] for t in REFUSED_TOKENS], ids=[t[0] for t in REFUSED_TOKENS]
)
def test_tokens_are_refused(gateway: RunningGateway, make: Any, code: str, message: str) -> None:
    answer = ask(
        gateway, "/rpc/whoami", key=gateway.keys.publishable, token=make(gateway.keys), json={}
    )

    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert message in answer.json()["message"]
    assert "invalid_token" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"role": None}, 200),
        ({"role": "postgres"}, 403),
        ({"role": "authenticator"}, 403),
        ({"role": "nobody_knows"}, 400),
        ({"role": 'anon"; drop table things; --'}, 400),
    ],
)
def test_a_token_only_becomes_what_authenticator_may_become(
    gateway: RunningGateway, claims: dict[str, Any], status: int
) -> None:
    token = make_token(gateway.keys.jwt_secret, **claims)

    answer = ask(gateway, "/things?select=id", key=gateway.keys.publishable, token=token)

    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("key", "message"),
    [(None, "No API key"), ("", "No API key"), ("sb_secret_no", "Invalid API key")],
)
def test_requests_without_a_key_are_refused(
    gateway: RunningGateway, key: str | None, message: str
) -> None:
    answer = ask(gateway, "/things", key=key, token=gateway.keys.user_token(ALICE))

    assert answer.status_code == 401
    assert message in answer.json()["message"]


def test_the_secret_key_is_refused_from_a_browser(gateway: RunningGateway) -> None:
    headers = {"user-agent": "Mozilla/5.0"}

    secret = ask(gateway, "/things", key=gateway.keys.secret, headers=headers)
    public = ask(gateway, "/things?select=id", key=gateway.keys.publishable, headers=headers)

    assert (secret.status_code, public.status_code) == (401, 200)


def test_the_key_may_come_in_the_query(gateway: RunningGateway) -> None:
    answer = ask(gateway, f"/rpc/add?a=1&apikey={gateway.keys.publishable}", key=None)

    assert answer.json() == 11


def test_keys_are_made_once_and_kept_private(tmp_path: Any) -> None:
    path = tmp_path / "new" / "keys.json"

    first, second = Keys.load(path), Keys.load(path)

    assert first == second
    assert path.stat().st_mode & 0o077 == 0
    assert first.secret not in repr(first)
    assert first != Keys.generate()


@pytest.fixture(scope="module")
def signing_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def jwks_url(signing_key: ec.EllipticCurvePrivateKey) -> Iterator[str]:
    public = json.loads(ECAlgorithm.to_jwk(signing_key.public_key()))
    body = json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        server.shutdown()
        thread.join()


def test_tokens_of_a_jwks_are_taken_too(
    gateway_database: str, signing_key: ec.EllipticCurvePrivateKey, jwks_url: str
) -> None:
    payload = {"role": "authenticated", "sub": BOB, "exp": clock.now_s() + 60}
    good = jwt.encode(payload, signing_key, "ES256", headers={"kid": "one"})
    other = jwt.encode(payload, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "one"})

    with running_gateway(gateway_database, jwks_url=jwks_url) as gateway:
        key = gateway.keys.publishable
        assert whoami(gateway, key, good)["uid"] == BOB
        assert whoami(gateway, key, gateway.keys.user_token(ALICE))["uid"] == ALICE
        assert ask(gateway, "/rpc/whoami", key=key, token=other, json={}).status_code == 401


HOSTILE = [
    "'; drop table public.things; --",
    '"; drop table public.things; --',
    "1); drop table public.things; --",
    "\\'; drop table public.things; --",
    "$1; drop table public.things",
    "$$; drop table public.things; $$",
    "* from pg_authid; --",
    'x"" or 1=1 --',
    "pg_sleep(10)",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_nothing_in_a_request_becomes_sql(
    things: None, gateway: RunningGateway, gateway_database: str, text: str
) -> None:
    params: list[dict[str, str]] = [
        {"name": f"eq.{text}"},
        {"name": f"in.({text})"},
        {"name": f"like.{text}"},
        {"name": f"eq(any).{{{text}}}"},
        {"name": f"fts({text}).x"},
        {"name": f"is.{text}"},
        {f"data->{text}": "eq.1"},
        {f"data->>{text}": "eq.1"},
        {text: "eq.1"},
        {f'"{text}"': "eq.1"},
        {"select": text},
        {"select": f"id::{text}"},
        {"select": f"{text}:id"},
        {"select": f"data->{text}"},
        {"select": f"data->>{text}::int"},
        {"order": text},
        {"order": f"id.{text}"},
        {"order": f"data->>{text}"},
        {"limit": text},
        {"offset": text},
        {"or": f"(name.eq.{text})"},
        {"or": f"({text}.eq.1)"},
        {"columns": text},
        {"on_conflict": text},
    ]
    headers = {
        "apikey": gateway.keys.secret,
        "cookie": f"c={text}",
        "x-hostile": text,
        "prefer": f"return={text},resolution={text},missing={text},return=representation",
    }
    user = gateway.keys.user_token(text, hostile=text)
    with httpx.Client(base_url=f"{gateway.url}/rest/v1", headers=headers) as client:
        for each in params:
            for method in ("GET", "DELETE", "PATCH", "POST"):
                body = {"name": text} if method in ("PATCH", "POST") else None
                asked = {**each, "id": "eq.0"} if method != "POST" else each
                answer = client.request(method, "/things", params=asked, json=body)
                assert answer.status_code < 500, (method, each, answer.text)
        client.post("/things", json={text: 1, "name": "n"})
        client.post("/rpc/rows", json={text: 1})
        client.post(f"/rpc/{text}", json={})
        client.get("/rpc/rows", params={text: "1"})
        client.get("/rpc/rows", params={"upto": "1", text: "eq.1"})
        client.get(f"/{text}")
        client.get("/things", headers={"accept-profile": text})
        client.get("/things", headers={"authorization": f"Bearer {user}", "range": text})
        written = client.get("/things", params={"select": "name", "name": f"eq.{text}"}).json()

    connection = await asyncpg.connect(gateway_database)
    rows = await connection.fetchval("select count(*) from public.things where id <= 3")
    await connection.close()
    assert rows == 3
    # What was stored is the text itself, letter by letter.
    assert written in ([], [{"name": text}])
