"""Calls of SQL functions as values: what is sent, and what cannot be."""

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from stepbase import NonRetriableError, RpcCall
from stepbase.supabase.call import UNTYPED, plain, prepare


class Colour(enum.StrEnum):
    RED = "red"


class Line(BaseModel):
    amount: Decimal


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (2**53, 2**53),
        (2**53 + 1, str(2**53 + 1)),
        (-(2**60), str(-(2**60))),
        (1.5, 1.5),
        ("ü", "ü"),
        (Colour.RED, "red"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), str(UUID(int=1))),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00+00:00"),
        (date(2030, 1, 1), "2030-01-01"),
        (time(9, 30), "09:30:00"),
        (timedelta(hours=1, microseconds=5), "3600000005 microseconds"),
        ([1, (2, {3})], [1, [2, [3]]]),
        ({"a": Line(amount=Decimal("2.50"))}, {"a": {"amount": "2.50"}}),
        (Point(2**60), {"x": str(2**60)}),
    ],
)
def test_arguments_become_json_the_database_reads_exactly(value: Any, sent: Any) -> None:
    assert plain(value, "f: p") == sent


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "f: p: nan is not a JSON number"),
        ({"a": ["\x00"]}, "f: p.a[0]: contains a NUL"),
        ("\ud800", "f: p: contains a lone surrogate"),
        ({"\x00": 1}, "f: p: contains a NUL"),
        (Point(object()), "f: p.x: object cannot be sent to the database"),  # type: ignore[arg-type]  # wrong on purpose
        (b"x", "bytes cannot be sent to the database"),
    ],
)
def test_what_cannot_be_sent_is_final_and_named(value: Any, says: str) -> None:
    with pytest.raises(NonRetriableError) as caught:
        plain(value, "f: p")

    assert says in str(caught.value)


def prepared(call: Any, args: Any = None, **options: Any) -> Any:
    given = {"key": None, "returns": UNTYPED, "as_user": None, "timeout": None, **options}
    return prepare("run-1", call, args, **given)


def test_a_call_by_name_and_a_typed_one_are_the_same() -> None:
    by_name = prepared("f", {"p_a": 1}, returns=int)
    typed = prepared(RpcCall("f", {"p_a": 1}, int))

    assert by_name == typed
    assert by_name.parameters("hash") == {
        "p_function": "f",
        "p_args": {"p_a": 1},
        "p_run_id": "run-1",
        "p_step": "hash",
        "p_key": None,
        "p_as_user": None,
        "p_timeout_ms": None,
    }


def test_options_are_prepared() -> None:
    call = prepared("f", key="k", as_user={"id": UUID(int=1), "n": 1}, timeout="1.5s")

    assert call.claims == {"id": str(UUID(int=1)), "n": 1, "sub": str(UUID(int=1))}
    assert (call.key, call.timeout_ms) == ("k", 1500)
    assert prepared("f", as_user={"sub": "s", "id": "i"}).claims == {"sub": "s", "id": "i"}


def test_a_typed_call_takes_no_further_arguments() -> None:
    with pytest.raises(NonRetriableError, match="has its arguments already"):
        prepared(RpcCall("f"), {"p_a": 1})
