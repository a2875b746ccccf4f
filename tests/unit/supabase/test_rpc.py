"""Which errors of the REST API are final, and what the others say."""

import json
from decimal import Decimal
from typing import Any

import pytest

from stepbase import NonRetriableError
from stepbase.supabase.call import UNTYPED, prepare
from stepbase.supabase.rpc import RpcError, classify, read

CALL = prepare("run", "f", {}, None, UNTYPED, None, None)

FINAL = ["P0001", "22003", "22P02", "23505", "23514", "PT400", "PT409", "SB001", "SB004"]
PASSING = {
    "PGRST202": "apply the migrations",
    "PGRST002": "apply the migrations",
    "42883": "apply the migrations",
    "25006": "read-only",
    "PGRST301": "check SUPABASE_SECRET_KEY",
    "PGRST302": "check SUPABASE_SECRET_KEY",
    "PGRST303": "check SUPABASE_SECRET_KEY",
    "42501": "grant execute on function",
    "57014": "statement timeout",
    "40001": "the next attempt usually succeeds",
    "40P01": "the next attempt usually succeeds",
    "55P03": "waited too long for a lock",
    "42725": "overloaded",
    "08006": "away or overloaded",
    "53300": "away or overloaded",
    "57P01": "away or overloaded",
    "PGRST003": "away or overloaded",
    "503": "away or overloaded",
    "P0002": "",
    "XX000": "",
    "PT503": "",
    "SB101": "",
    "": "no code",
}


@pytest.mark.parametrize("code", FINAL)
def test_what_cannot_come_out_differently_is_final(code: str) -> None:
    error = classify("f", {"code": code, "message": "the database's words"})

    assert isinstance(error, NonRetriableError)
    assert str(error) == "the database's words"
    assert isinstance(error.__cause__, RpcError)
    assert error.__cause__.code == code


@pytest.mark.parametrize("code", PASSING)
def test_what_may_pass_is_tried_again_with_a_hint(code: str) -> None:
    body = {"code": code, "message": "words", "details": "more", "hint": "theirs"}

    error = classify("f", body)

    assert isinstance(error, RpcError)
    assert str(error).startswith("f: words (")
    assert "; more; theirs" in str(error)
    assert PASSING[code] in str(error)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_an_answer_without_a_code_is_known_by_its_status(status: int) -> None:
    error = classify("f", {"message": "Invalid API key", "code": None}, status)

    assert isinstance(error, RpcError)
    assert error.code == str(status)
    assert "; " in str(error)


def test_an_error_that_is_no_object_is_still_one() -> None:
    assert isinstance(classify("f", "text"), RpcError)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("1.5", 1.5),
        ("0.1", 0.1),
        ("12345678901234567890.5", Decimal("12345678901234567890.5")),
        ("9223372036854775807", 9223372036854775807),
        ("1e400", Decimal("1e400")),
    ],
)
def test_numbers_are_read_without_loss(number: str, value: Any) -> None:
    found = read(CALL, f'{{"data": {number}, "replayed": false}}')

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("answer", ["{", "[]", '{"replayed": true}', None, 7, json.dumps("x")])
def test_an_answer_that_is_no_envelope_is_tried_again(answer: Any) -> None:
    with pytest.raises(RpcError, match="the migrations of this database are of another version"):
        read(CALL, answer)
