"""Users by their tokens: real keys, a real key set over HTTP, and everything that is not to be believed."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from tests.support.auth_server import (
    ALICE,
    SECRET,
    AuthServer,
    auth_server,
    ec_key,
    public_jwk,
    rsa_key,
    sign,
    unsigned,
)
from tests.support.fake_api import Received

from stepbase import DefinitionError, clock, config
from stepbase.config import AuthConfig
from stepbase.supabase import jwks
from stepbase.supabase.auth import AuthError, Verifier, bearer
from stepbase.supabase.jwks import KeysAwayError, KeySet, UnknownKeyError


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with auth_server() as running:
        yield running


def settings(server: AuthServer, secret: str | None = None) -> AuthConfig:
    return AuthConfig(
        f"{server.url}/auth/v1/.well-known/jwks.json", (f"{server.url}/auth/v1",), secret
    )


@pytest.fixture
def verifier(server: AuthServer) -> Verifier:
    return Verifier(settings(server))


def refused(verifier: Verifier, token: str) -> AuthError:
    """Return why a token is refused; no part of it is told."""
    with pytest.raises(AuthError) as caught:
        verifier.verify(token)
    error = caught.value
    parts = [part for part in token.split(".") if len(part) > 8]
    assert not any(part in f"{error} {error!r} {error.challenge}" for part in parts)
    return error


# -- tokens that are believed ------------------------------------------------------------------------


def test_a_users_token_says_who_it_is(server: AuthServer, verifier: Verifier) -> None:
    user = verifier.verify(server.token(app_metadata={"plan": "pro"}))

    assert (user.id, user.role, user.is_anonymous) == (ALICE, "authenticated", False)
    assert user.claims["app_metadata"] == {"plan": "pro"}
    assert "alice@example.com" not in repr(user)


async def test_keys_are_fetched_once_for_everybody(server: AuthServer, verifier: Verifier) -> None:
    server.keys["second"] = rsa_key()
    tokens = [server.token(kid) for kid in ("first", "second")] * 20

    users = await asyncio.gather(*map(verifier.averify, tokens))

    assert {user.id for user in users} == {ALICE}
    assert server.fetches == 1


def test_a_legacy_token_needs_the_secret(server: AuthServer, verifier: Verifier) -> None:
    token = sign(SECRET, server.claims())

    assert Verifier(settings(server, SECRET)).verify(token).id == ALICE
    assert refused(verifier, token).code == "algorithm_not_accepted"
    other = Verifier(settings(server, "x" + SECRET))
    assert refused(other, token).code == "signature_wrong"
    assert server.fetches == 0


async def test_a_legacy_token_with_a_key_id_asks_for_no_keys(server: AuthServer) -> None:
    verifier = Verifier(settings(server, SECRET))

    user = await verifier.averify(sign(SECRET, server.claims(), kid="legacy"))

    assert (user.id, server.fetches) == (ALICE, 0)


def test_while_a_project_changes_over_both_kinds_are_believed(server: AuthServer) -> None:
    verifier = Verifier(settings(server, SECRET))

    assert verifier.verify(server.token()).id == ALICE
    assert verifier.verify(sign(SECRET, server.claims(), kid="legacy")).id == ALICE


@pytest.mark.parametrize("off", [-5, 5])
def test_clocks_may_differ_a_little(server: AuthServer, verifier: Verifier, off: int) -> None:
    now = clock.now_s()
    token = server.token(iat=now + off, nbf=now + off, exp=now + off if off < 0 else now + 60)

    assert verifier.verify(token).id == ALICE


# -- tokens that are not -----------------------------------------------------------------------------

NOT_BELIEVED = {
    "token_expired": {"exp": -60},
    "token_not_yet_valid": {"nbf": +60},
}


@pytest.mark.parametrize(("code", "times"), NOT_BELIEVED.items())
def test_times_hold(
    server: AuthServer, verifier: Verifier, code: str, times: dict[str, int]
) -> None:
    now = clock.now_s()
    claims: dict[str, Any] = {name: now + seconds for name, seconds in times.items()}

    error = refused(verifier, server.token(**claims))

    assert (error.status, error.code) == (401, code)
    assert error.challenge == f'Bearer error="invalid_token", error_description="{code}"'


@pytest.mark.parametrize(
    ("claims", "code", "says"),
    [
        ({"aud": "other"}, "audience_not_accepted", '"authenticated"'),
        ({"aud": ["a", "b"]}, "audience_not_accepted", '"authenticated"'),
        ({"iss": "https://other.supabase.co/auth/v1"}, "issuer_not_accepted", "/auth/v1"),
        ({"exp": None}, "token_malformed", "no exp"),
        ({"sub": None}, "token_malformed", "no sub"),
        ({"aud": None}, "token_malformed", "no aud"),
        ({"iss": None}, "token_malformed", "no iss"),
        ({"sub": ""}, "token_malformed", "sub"),
        ({"sub": "a/b"}, "token_malformed", "sub"),
        ({"sub": "x" * 129}, "token_malformed", "sub"),
        ({"sub": 7}, "token_malformed", "form"),
        ({"role": None}, "token_malformed", "role"),
        ({"role": 1}, "token_malformed", "role"),
        ({"exp": "soon"}, "token_malformed", "form"),
    ],
)
def test_claims_hold(
    server: AuthServer, verifier: Verifier, claims: dict[str, object], code: str, says: str
) -> None:
    token = signed_unchecked(server, claims)

    error = refused(verifier, token)

    assert (error.status, error.code) == (401, code)
    assert says in str(error)


def signed_unchecked(server: AuthServer, claims: dict[str, object]) -> str:
    """Return a token signed by the project's key, with claims that pyjwt itself would not write."""
    both = {**server.claims(), **claims}
    said = {name: value for name, value in both.items() if value is not None}
    signer = jwt.PyJWS()
    return signer.encode(
        json.dumps(said).encode(), server.keys["first"], "ES256", headers={"kid": "first"}
    )


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "....", "ä.ö.ü", "x" * 20_000])
def test_what_is_no_token_is_said_to_be_none(verifier: Verifier, token: str) -> None:
    assert refused(verifier, token).code == "token_malformed"


def test_a_changed_token_is_refused(server: AuthServer, verifier: Verifier) -> None:
    head, _, signature = server.token().split(".")
    _, body, _ = server.token(user="22222222-2222-4222-8222-222222222222").split(".")

    assert refused(verifier, f"{head}.{body}.{signature}").code == "signature_wrong"
    assert refused(verifier, f"{head}.{body}.").code == "signature_wrong"


def test_a_key_of_another_project_is_refused(server: AuthServer, verifier: Verifier) -> None:
    forged = sign(ec_key(), server.claims(), kid="first")

    assert refused(verifier, forged).code == "signature_wrong"


@pytest.mark.parametrize("has_secret", [False, True])
def test_a_public_key_does_not_pass_for_a_secret(server: AuthServer, has_secret: bool) -> None:
    verifier = Verifier(settings(server, SECRET if has_secret else None))
    verifier.verify(server.token())
    public = server.keys["first"].public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        token = unsigned({"alg": "HS256", "typ": "JWT", "kid": "first"}, server.claims())
        material = public.public_bytes(encoding, form)
        mac = hmac.new(material, token.rstrip(".").encode(), hashlib.sha256).digest()
        forged = token.rstrip(".") + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

        expected = "signature_wrong" if has_secret else "algorithm_not_accepted"
        assert refused(verifier, forged).code == expected


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS512", "ES384", "PS256", "EdDSA", "", None, 5]
)
def test_other_algorithms_are_refused(
    server: AuthServer, verifier: Verifier, algorithm: object
) -> None:
    token = unsigned({"alg": algorithm, "kid": "first"}, server.claims(), b"x" * 64)

    assert refused(verifier, token).code in ("algorithm_not_accepted", "token_malformed")


@pytest.mark.parametrize(
    ("header", "claims"),
    [({"alg": ["ES256"]}, {}), ({"alg": {}}, {}), ({}, {"role": ["anon"]}), ({}, {"role": {}})],
)
async def test_fields_of_another_kind_than_text_are_refused(
    server: AuthServer, verifier: Verifier, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    token = unsigned({"alg": "ES256", "kid": "first", **header}, server.claims(**claims), b"x" * 64)

    with pytest.raises(AuthError) as caught:
        await verifier.averify(token)
    assert caught.value.status == 401
    assert refused(verifier, token).status == 401


def test_a_key_is_used_only_for_its_own_algorithm(server: AuthServer, verifier: Verifier) -> None:
    token = unsigned({"alg": "RS256", "kid": "first"}, server.claims(), b"x" * 64)

    assert refused(verifier, token).code == "token_malformed"


def test_a_token_that_names_no_key_is_refused(server: AuthServer, verifier: Verifier) -> None:
    assert refused(verifier, sign(server.keys["first"], server.claims())).code == "token_malformed"


# -- what is no user ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "no_token"),
        ("", "no_token"),
        ("Bearer", "no_token"),
        ("Bearer  ", "no_token"),
        ("Basic abc", "no_token"),
        ("Bearer sb_publishable_abcdefghijklm", "api_key_is_no_user"),
        ("bearer sb_secret_abcdefghijklmnopq", "api_key_is_no_user"),
    ],
)
def test_a_header_without_a_user_is_refused(header: str | None, code: str) -> None:
    with pytest.raises(AuthError) as caught:
        bearer(header)

    assert (caught.value.status, caught.value.code) == (401, code)
    assert "abcdefghijklm" not in str(caught.value)
    assert "access_token" in str(caught.value)


def test_a_bearer_token_is_taken_out_of_its_header() -> None:
    assert bearer("Bearer a.b.c") == bearer("  bEARER   a.b.c ") == "a.b.c"


@pytest.mark.parametrize("role", ["anon", "service_role"])
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_legacy_key_is_no_user(server: AuthServer, role: str, secret: str | None) -> None:
    key = sign(SECRET, {"iss": "supabase", "ref": "abc", "role": role, "exp": 2_000_000_000})

    assert refused(Verifier(settings(server, secret)), key).code == "api_key_is_no_user"


def test_roles_and_anonymous_users_are_allowed_where_it_is_said(server: AuthServer) -> None:
    plain = Verifier(settings(server))
    open_ = Verifier(settings(server), roles=("authenticated", "staff"), allow_anonymous=True)
    staff, guest = server.token(role="staff"), server.token(is_anonymous=True)

    assert open_.verify(staff).role == "staff"
    assert open_.verify(guest).is_anonymous
    for token, code in ((staff, "role_not_allowed"), (guest, "anonymous_not_allowed")):
        error = refused(plain, token)
        assert (error.status, error.code) == (403, code)
        assert error.challenge == f'Bearer error="insufficient_scope", error_description="{code}"'


def test_a_secret_that_can_be_guessed_is_refused(server: AuthServer) -> None:
    with pytest.raises(DefinitionError, match="at least 32") as caught:
        Verifier(settings(server, "short secret"))

    assert "short secret" not in str(caught.value)


def test_nothing_is_logged(
    server: AuthServer, verifier: Verifier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "stepbase")

    verifier.verify(server.token())
    refused(verifier, server.token(exp=1))

    assert [record for record in caplog.records if record.name.startswith("stepbase")] == []


# -- the keys ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def keys_of(server: AuthServer, now: Clock) -> KeySet:
    return KeySet(f"{server.url}/auth/v1/.well-known/jwks.json", now=now)


def test_a_rotated_key_is_found_after_the_cooldown(server: AuthServer) -> None:
    now = Clock()
    keys = keys_of(server, now)
    keys.find("first")
    server.keys["second"] = ec_key()

    with pytest.raises(UnknownKeyError):
        keys.find("second")
    assert server.fetches == 1

    now.now += jwks.COOLDOWN_SECONDS
    assert keys.find("second").key_id == "second"
    assert server.fetches == 2


def test_a_revoked_key_is_forgotten_when_the_set_is_old(server: AuthServer) -> None:
    now = Clock()
    keys = keys_of(server, now)
    keys.find("first")
    server.keys = {"second": ec_key()}

    now.now += jwks.FRESH_SECONDS - 1
    keys.find("first")
    now.now += 1

    with pytest.raises(UnknownKeyError):
        keys.find("first")
    assert server.fetches == 2


def test_a_flood_of_invented_ids_does_not_reach_the_server(server: AuthServer) -> None:
    now = Clock()
    keys = keys_of(server, now)

    def ask(i: int) -> None:
        with pytest.raises(UnknownKeyError):
            keys.find(f"invented-{i}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(500)))
    assert server.fetches == 1

    now.now += jwks.COOLDOWN_SECONDS
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(500)))
    assert server.fetches == 2
    assert keys.find("first").key_id == "first"


def test_a_server_that_is_away_leaves_the_old_keys_for_a_while(server: AuthServer) -> None:
    now = Clock()
    keys = keys_of(server, now)
    keys.find("first")
    for answer in ((503, {}), (200, b"<html>"), (200, {"error": 1}), (302, {})):
        server.answer = answer
        now.now += jwks.FRESH_SECONDS
        assert keys.find("first").key_id == "first"
    assert server.fetches == 5

    now.now += jwks.STALE_SECONDS - 4 * jwks.FRESH_SECONDS
    with pytest.raises(KeysAwayError, match="HTTP 302"):
        keys.find("first")

    server.answer = None
    now.now += jwks.RETRY_SECONDS
    assert keys.find("first").key_id == "first"


def test_without_any_keys_the_server_is_asked_again_soon_but_not_at_once(
    server: AuthServer,
) -> None:
    now = Clock()
    keys = keys_of(server, now)
    server.answer = (500, {})
    for _ in range(100):
        with pytest.raises(KeysAwayError):
            keys.find("first")
    assert server.fetches == 1

    server.answer = None
    now.now += jwks.RETRY_SECONDS
    assert keys.find("first").key_id == "first"


def test_who_has_an_old_key_does_not_wait_for_somebody_elses_fetch(server: AuthServer) -> None:
    now, begun, go_on = Clock(), threading.Event(), threading.Event()
    slow = False

    def fetch(url: str) -> bytes:
        if slow:
            begun.set()
            assert go_on.wait(10)
        return jwks._get(url)

    keys = KeySet(f"{server.url}/auth/v1/.well-known/jwks.json", fetch=fetch, now=now)
    keys.find("first")
    slow = True
    now.now += jwks.FRESH_SECONDS

    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(keys.find, "first")
        assert begun.wait(10)
        assert keys.find("first").key_id == "first"  # while the other one still fetches
        assert not fetching.done()
        go_on.set()
        assert fetching.result(10).key_id == "first"


def test_a_server_that_cannot_be_reached_is_503(server: AuthServer) -> None:
    elsewhere = AuthConfig("http://127.0.0.1:1/jwks.json", (f"{server.url}/auth/v1",))

    error = refused(Verifier(elsewhere), server.token())

    assert (error.status, error.code, error.challenge) == (503, "keys_unavailable", None)
    assert "127.0.0.1" not in str(error)


def test_only_keys_for_checking_tokens_are_taken(server: AuthServer) -> None:
    good = public_jwk("good", rsa_key())
    listed = [
        good,
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "other-algorithm", "alg": "PS256"},
        {**public_jwk("short", rsa_key(1024))},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "!", "y": "!"},
        {"kty": "EC", "crv": "P-521", "kid": "curve"},
        {name: value for name, value in good.items() if name != "kid"},
        "text",
        7,
    ]
    server.answer = (200, {"keys": listed})

    keys = keys_of(server, Clock())

    assert keys.find("good").algorithm_name == "RS256"
    for kid in ("encrypts", "other-algorithm", "short", "secret", "broken", "curve"):
        with pytest.raises(UnknownKeyError):
            keys.find(kid)


def test_a_set_without_end_is_not_read_to_its_end(server: AuthServer) -> None:
    server.answer = (200, b"[" * 400_000)

    with pytest.raises(KeysAwayError, match="no end"):
        keys_of(server, Clock()).find("first")


@pytest.mark.parametrize(
    "answer",
    [b"[" * 200_000, b"\xff\xfe", b"7", b"null", b'{"keys": {}}', b'{"keys": 7}', b""],
)
def test_an_answer_that_is_no_set_is_keys_away(server: AuthServer, answer: bytes) -> None:
    server.answer = (200, answer)

    with pytest.raises(KeysAwayError):
        keys_of(server, Clock()).find("first")


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": ["EC"]}, {"kty": {"a": 1}}, {"crv": []}, {"x": 7}, {"x": None}, {"x": ["a"]}, {"y": {}},
        {"alg": []}, {"use": []}, {"kid": []}, {"key_ops": 7}, {"kty": "RSA", "crv": None, "n": 7, "e": 7},
        {"kty": "RSA", "crv": None, "n": "AQAB", "e": "AQAB"}, {"kty": "RSA", "crv": None, "n": "", "e": ""},
        {"x": "ÄÖ"}, {"x": "A" * 5000},
    ],
)  # fmt: skip
def test_an_odd_key_spoils_no_other(server: AuthServer, odd: dict[str, Any]) -> None:
    strange = {**public_jwk("strange", ec_key()), "kid": "strange", **odd}
    server.answer = (200, {"keys": [strange, public_jwk("good", ec_key())]})

    keys = keys_of(server, Clock())

    assert keys.find("good").algorithm_name == "ES256"


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a b/jwks.json", "ref.supabase.co/x", "http://"]
)
def test_an_address_that_is_none_is_keys_away(url: str) -> None:
    with pytest.raises(KeysAwayError):
        KeySet(url).find("first")


@pytest.mark.parametrize(
    "url",
    [
        "ref.supabase.co", "https://", "ftp://ref.supabase.co", "https://[::1", "https://ref supabase.co",
        "https://ref.supabase.co?x=1", "<your project's URL>", "https://user:pass@ref.supabase.co",
    ],
)  # fmt: skip
def test_a_project_url_that_is_none_is_said_to_be_none(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SUPABASE_URL", url)

    with pytest.raises(LookupError, match=r"SUPABASE_URL is .* https://<ref>\.supabase\.co"):
        config.supabase_auth()


def test_whatever_a_token_says_it_is_refused_in_words(server: AuthServer) -> None:
    """Odd headers and claims, unsigned and really signed with the legacy secret (seed: 1)."""
    chance = random.Random(1)
    odd: list[object] = [
        None,
        True,
        0,
        -1,
        1e308,
        10**40,
        float("inf"),
        float("nan"),
        "",
        "x",
        [],
        [[]],
        {},
        "\ud800",
    ]
    verifier = Verifier(replace(settings(server), jwt_secret=SECRET))
    codes = set()
    for _ in range(1500):
        header: dict[str, Any] = {"alg": chance.choice(["HS256", "ES256", "none"]), "kid": "first"}
        claims: dict[str, Any] = {
            "sub": ALICE, "role": "authenticated", "aud": "authenticated", "exp": 2**33,
            "iss": f"{server.url}/auth/v1",
        }  # fmt: skip
        for place, names in (
            (header, ("alg", "kid", "crit", "b64", "jku", "jwk")),
            (claims, _CLAIMS),
        ):
            for _ in range(chance.randint(0, 2)):
                place[chance.choice(names)] = chance.choice(odd)
        said = f"{encoded(header)}.{encoded(claims)}"
        digest = hmac.new(SECRET.encode(), said.encode(), hashlib.sha256).digest()
        signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_signed = chance.random() < 0.6
        try:
            user = verifier.verify(f"{said}.{signature if is_signed else 'AAAA'}")
        except AuthError as error:
            codes.add(error.code)
        else:
            assert is_signed and header["alg"] == "HS256" and user.id == claims["sub"]
    assert {"token_malformed", "signature_wrong", "algorithm_not_accepted"} <= codes


_CLAIMS = ("sub", "role", "aud", "iss", "exp", "nbf", "iat", "is_anonymous", "jti")


def encoded(value: object) -> str:
    raw = json.dumps(value).encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_fetching_does_not_hold_up_the_event_loop(
    server: AuthServer, verifier: Verifier
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    publish = server.api.answer

    def slowly(request: Received) -> tuple[int, Any]:
        asked.set()
        assert go_on.wait(10)
        return publish(request)

    server.api.answer = slowly
    checking = asyncio.create_task(verifier.averify(server.token()))
    while not asked.is_set():
        await asyncio.sleep(0)  # the loop turns: nothing blocks it
    assert not checking.done()
    go_on.set()

    assert (await checking).id == ALICE


# -- the environment ---------------------------------------------------------------------------------


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="SUPABASE_URL"):
        config.supabase_auth()
    monkeypatch.setenv("SUPABASE_URL", "https://ref.supabase.co/")
    assert config.supabase_auth() == AuthConfig(
        "https://ref.supabase.co/auth/v1/.well-known/jwks.json",
        ("https://ref.supabase.co/auth/v1",),
    )

    monkeypatch.setenv("SUPABASE_JWT_SECRET", SECRET)
    monkeypatch.setenv("SUPABASE_JWT_ISSUER", "https://a.example/auth/v1, https://b.example/x/")
    found = config.supabase_auth()
    assert found.issuers == ("https://a.example/auth/v1", "https://b.example/x")
    assert found.jwt_secret == SECRET
    assert SECRET not in repr(found)


def test_settings_may_have_names_that_supabase_lets_a_project_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://ref.supabase.co")
    for prefix in ("SUPABASE", "STEPBASE"):  # the second one wins
        monkeypatch.setenv(f"{prefix}_JWT_SECRET", f"{prefix} secret")
        monkeypatch.setenv(f"{prefix}_JWT_ISSUER", f"https://{prefix}")
        found = config.supabase_auth()
        assert (found.jwt_secret, found.issuers) == (f"{prefix} secret", (f"https://{prefix}",))
