"""Signatures and bearer tokens, against what the real server and the official SDK signed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.errors import SignatureError
from stepbase.protocol import signing

FOLDER = Path(__file__).parents[2] / "vectors" / "inngest-server"
KEY = "0123456789abcdef0123456789abcdef"
OTHER = "signkey-prod-" + "fedcba9876543210" * 2


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize(
    "name", ["27-start-mode-sync-PUT-from-server", "29-start-mode-signed-call"]
)
def test_the_servers_recorded_signatures_verify(name: str) -> None:
    request = load(name)["request"]
    header = {k.lower(): v for k, v in request["headers"]}["x-inngest-signature"]
    at = int(header.split("&")[0].removeprefix("t="))
    body = signing.canonical_json(json.dumps(request["body"]).encode())

    assert signing.verify(header, body, [OTHER, KEY], at) == KEY
    assert signing.sign(body, KEY, at) == header
    # A proxy may have written the JSON anew.
    pretty = json.dumps(request["body"], indent=2).encode()
    assert signing.verify(header, pretty, [KEY], at) == KEY


def test_bearer_tokens_are_as_recorded() -> None:
    headers = dict(load("28-start-mode-POST-fn-register")["request"]["headers"])

    token = headers["authorization"].removeprefix("Bearer ")
    assert signing.hash_key(KEY) == signing.hash_key(f"signkey-test-{KEY}") == token
    assert signing.bearer_matches(token, [OTHER, KEY])
    assert signing.bearer_matches(f"signkey-test-{token}", [KEY])
    assert signing.bearer_matches(KEY, [KEY])
    assert not signing.bearer_matches(token, [OTHER])


@given(st.binary(), st.integers(0, 2**33))
def test_what_is_signed_verifies_within_five_minutes(body: bytes, at: int) -> None:
    header = signing.sign(body, OTHER, at)

    for now in (at - 300, at, at + 300):
        assert signing.verify(header, body, [KEY, OTHER], now) == OTHER
    for now in (at - 301, at + 301):
        with pytest.raises(SignatureError) as caught:
            signing.verify(header, body, [OTHER], now)
        assert caught.value.code == "sig_expired"


@given(st.binary(), st.binary())
def test_another_body_or_key_is_refused(body: bytes, other: bytes) -> None:
    header = signing.sign(body, KEY, 1000)

    with pytest.raises(SignatureError, match="check that INNGEST_SIGNING_KEY"):
        signing.verify(header, body, [OTHER], 1000)
    if signing.canonical_json(body) != signing.canonical_json(other):
        with pytest.raises(SignatureError):
            signing.verify(header, other, [KEY], 1000)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "header_missing"),
        ("", "header_missing"),
        ("nonsense", "sig_verification_failed"),
        ("t=1000", "sig_verification_failed"),
        ("t=x&s=ab", "sig_verification_failed"),
        ("t=1000&s=\xfc", "sig_verification_failed"),
        (f"t={'9' * 30}&s=ab", "sig_verification_failed"),
    ],
)
def test_a_malformed_header_is_refused(header: str | None, code: str) -> None:
    with pytest.raises(SignatureError) as caught:
        signing.verify(header, b"", [KEY], 1000)

    assert (caught.value.status, caught.value.code) == (401, code)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"{", b"{"),
        (b'{"b":1,"a":[1.0,"\\u00e9"]}', '{"a":[1,"é"],"b":1}'.encode()),
        (b'{"n":12345678901234567890}', b'{"n":12345678901234567890}'),
    ],
)
def test_the_canonical_form(body: bytes, canonical: bytes) -> None:
    assert signing.canonical_json(body) == canonical


def test_a_key_that_is_not_hex_says_how_to_make_one() -> None:
    with pytest.raises(ValueError, match="openssl rand -hex 32") as caught:
        signing.hash_key("signkey-test-secret!")

    assert "secret!" not in str(caught.value)
