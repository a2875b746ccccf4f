"""What is taken out of payloads and messages before they are stored elsewhere, and what is not."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbase.protocol.redact import SHOWN, names_a_secret, redact, redact_json, redact_text

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "Authorization", "cookie", "password", "db_password", "secret", "clientSecret",
        "token", "accessToken", "x-auth-token", "refresh_tokens", "apiKey", "api_key", "x-api-key",
        "signing_key", "private-key", "serviceRole", "credentials", "jwt",
    ],
)  # fmt: skip
def test_fields_named_like_a_secret_are_taken_out(name: str) -> None:
    assert names_a_secret(name)
    assert redact({name: "abc"}) == {name: SHOWN}


@pytest.mark.parametrize(
    "value",
    [
        {"user_id": "7", "amount": 5, "note": "a secret is no field"},
        {"key": "award:1", "source_id": "k1", "tokenizer": "bpe", "secretary": "Ann"},
        {"max_tokens": 100, "total_tokens": 1234, "has_password": False},
        ["basic authentication failed", "the bearer of this note", "a token of thanks"],
        {"url": "https://example.com/a?b=c@d", "mail": "ann@example.com"},
    ],
)
def test_ordinary_data_stay(value: Any) -> None:
    assert redact(value) == value


@pytest.mark.parametrize(
    "key",
    [
        "sb_secret_abcdEFGH1234", "sb_publishable_abc123", "sbp_" + "0a" * 20, "signkey-prod-0123abcd",
        "sk_live_0123456789abcdef0", "sk-proj-0123456789abcdefgh", "whsec_0123456789abcdefg",
        "ghp_" + "a1" * 12, "xoxb-0123456789ab", "AKIA0123456789ABCDEF", JWT, f"Bearer {JWT}",
        "bearer 0123456789abcdef", "Basic dXNlcjpwYXNz1234",
    ],
)  # fmt: skip
def test_texts_that_look_like_a_key_are_taken_out_wherever_they_stand(key: str) -> None:
    assert redact_text(f"got {key}, refused") == f"got {SHOWN}, refused"
    assert redact({"deep": [{"note": f"({key})"}]}) == {"deep": [{"note": f"({SHOWN})"}]}


def test_passwords_in_urls_and_given_secrets_are_taken_out() -> None:
    text = "cannot reach postgresql://postgres:hunter2@db.example.com/x with my-own-secret"

    shown = redact_text(text, ["my-own-secret", "short"])

    assert shown == f"cannot reach postgresql://{SHOWN}@db.example.com/x with {SHOWN}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POST https://inn.gs/e/aB3-5678901234567890xyz: 401", f"POST https://inn.gs/e/{SHOWN}: 401"),
        ("https://a.example/api/inngest?eventKey=ab1&x=2", f"https://a.example/api/inngest?eventKey={SHOWN}&x=2"),
        ("https://a.example/?key=ab1#end", f"https://a.example/?key={SHOWN}#end"),
        ("sent 'Authorization: abc123def'", f"sent 'Authorization: {SHOWN}'"),
        ("sent X-Api-Key=abc123def, twice", f"sent X-Api-Key={SHOWN}, twice"),
        ("password: required", "password: required"),
        ("https://a.example/e/short?tokens_used=5", "https://a.example/e/short?tokens_used=5"),
    ],
)  # fmt: skip
def test_keys_in_urls_and_headers_in_messages_are_taken_out(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"n":12345678901234567890, "t":1.10}', '{"n":12345678901234567890, "t":1.10}'),
        ('{"authorization":["a","b"]}', f'{{"authorization": ["{SHOWN}", "{SHOWN}"]}}'),
        ('[["Cookie","sid=1"],["accept","*"]]', f'[["Cookie", "{SHOWN}"], ["accept", "*"]]'),
        ('{"name":"x-api-key","value":"v"}', f'{{"name": "x-api-key", "value": "{SHOWN}"}}'),
        ("sb_secret_abcd is no JSON", f"{SHOWN} is no JSON"),
        ("{sb_secret_abcd", f"{{{SHOWN}"),
    ],
)
def test_json_text_is_only_changed_where_a_secret_stands(text: str, shown: str) -> None:
    assert redact_json(text) == shown


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each)
    | st.dictionaries(st.text(), each)))  # fmt: skip
def test_a_given_secret_is_nowhere_left_and_the_shape_stays(value: Any) -> None:
    secret = "0123456789-secret"
    shown = redact([value, {"x": f"a{secret}b"}, secret], (secret,))

    assert secret not in repr(shown)
    assert len(shown) == 3 and type(shown[0]) is type(value)


@pytest.mark.parametrize(
    "part",
    [
        "a-",
        "eyJ",
        "eyJ-",
        "0a1b2c3d-",
        "password ",
        "basic ",
        "://a:",
        "?a-",
        "a_",
        "=",
        "x-api-key-",
    ],
)
def test_a_long_text_takes_no_more_than_its_length(part: str) -> None:
    def seconds(size: int) -> float:
        text = (part * size)[:size]
        times = []
        for _ in range(3):
            began = time.perf_counter()
            redact_text(text)
            times.append(time.perf_counter() - began)
        return min(times)

    # Eight times the text: 64 times as long if each place were compared with all that follow.
    assert seconds(32_000) < 30 * max(seconds(4_000), 0.0001)


def test_a_pair_is_looked_into_on_both_sides() -> None:
    key = "sb_secret_abcdefgh123456"

    assert redact([[key, "u"]]) == [[SHOWN, "u"]]
    assert redact([[{"password": "hunter2hunter2"}, 1]]) == [[{"password": SHOWN}, 1]]
    assert redact([["authorization", "x"]]) == [["authorization", SHOWN]]
