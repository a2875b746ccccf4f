"""Writes to tables as values: what is sent, what filters mean, and what cannot be."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from stepbase import NonRetriableError
from stepbase.supabase.call import UNTYPED
from stepbase.supabase.table import PreparedWrite, Table, parse_filters


class Line(BaseModel):
    amount: Decimal


@dataclass
class Point:
    x: int


def table(name: str = "orders", **options: Any) -> Table[PreparedWrite]:
    given = {"key": None, "returns": UNTYPED, "as_user": None, "timeout": None, **options}
    return Table(lambda prepared: prepared, "run-1", name, **given)


def test_a_table_to_which_nothing_is_done_is_warned_of() -> None:
    with pytest.warns(RuntimeWarning, match="step.table for 'orders' wrote nothing: insert"):
        table()


def test_an_insert_is_sent_with_its_options() -> None:
    prepared = table(key="k", as_user={"id": "u"}, timeout="1.5s", returns=None).insert({"a": 1})

    assert prepared.through == "stepbase_write"
    assert prepared.function == "insert into orders"
    assert prepared.parameters("hash") == {
        "p_table": "orders",
        "p_action": "insert",
        "p_args": {"rows": [{"a": 1}]},
        "p_run_id": "run-1",
        "p_step": "hash",
        "p_key": "k",
        "p_as_user": {"id": "u", "sub": "u"},
        "p_timeout_ms": 1500,
        "p_returning": False,
    }
    assert table().insert({}).parameters("hash")["p_returning"] is True


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"a": None}, [{"a": None}]),
        ([{"a": 2**60}, {}], [{"a": str(2**60)}, {}]),
        (({"a": 1},), [{"a": 1}]),
        ([], []),
        (Line(amount=Decimal("2.50")), [{"amount": "2.50"}]),
        ([Point(1), Line(amount=Decimal(1))], [{"x": 1}, {"amount": "1"}]),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC)}, [{"at": "2030-01-01T00:00:00+00:00"}]),
    ],
)
def test_rows_are_mappings_models_or_dataclasses(given: Any, rows: Any) -> None:
    assert table().insert(given).args == {"rows": rows}


@pytest.mark.parametrize("given", ["text", 7, None, [1], [[{"a": 1}]]])
def test_what_is_no_row_is_refused(given: Any) -> None:
    with pytest.raises(NonRetriableError, match=r"orders: rows\[0\]: a row is a mapping"):
        table().insert(given)


def test_an_upsert_says_what_it_goes_by() -> None:
    assert table().upsert({"a": 1}).args == {"rows": [{"a": 1}]}
    assert table().upsert({"a": 1}, "a, b").args["on_conflict"] == ["a", "b"]
    assert table().upsert({"a": 1}, on_conflict=("a",)).args["on_conflict"] == ["a"]
    assert table().upsert({"a": 1}, ignore_duplicates=True).args["ignore_duplicates"] is True


def test_an_update_and_a_delete_have_filters() -> None:
    update = table().update({"status": "paid", "at": None}, id=7)
    delete = table("shop.orders").delete(id=7, values=1, self=2)

    assert update.args == {
        "values": {"status": "paid", "at": None},
        "filters": {"id": {"eq": 7}},
    }
    assert (update.function, update.action) == ("update orders", "update")
    assert delete.args == {"filters": {"id": {"eq": 7}, "values": {"eq": 1}, "self": {"eq": 2}}}
    assert (delete.function, delete.action) == ("delete from shop.orders", "delete")


@pytest.mark.parametrize(
    ("given", "filters"),
    [
        ({"id": 7}, {"id": {"eq": 7}}),
        ({"id__eq": 7}, {"id": {"eq": 7}}),
        ({"a__gte": 1, "a__lt": Decimal("5.0")}, {"a": {"gte": 1, "lt": "5.0"}}),
        (
            {"a__neq": 1, "b__gt": 2, "c__lte": 3},
            {"a": {"neq": 1}, "b": {"gt": 2}, "c": {"lte": 3}},
        ),
        ({"a__in": {1}}, {"a": {"in": [1]}}),
        ({"a__in": (n for n in (1, 2))}, {"a": {"in": [1, 2]}}),
        ({"a": None}, {"a": {"is_null": True}}),
        ({"a__neq": None}, {"a": {"is_null": False}}),
        ({"a__is_null": False, "a": 1}, {"a": {"is_null": False, "eq": 1}}),
        ({"tags": ["x"]}, {"tags": {"eq": ["x"]}}),
        ({"a__b": 1}, {"a__b": {"eq": 1}}),
        ({"a__gt__eq": 1}, {"a__gt": {"eq": 1}}),
        ({"__gt": 1}, {"__gt": {"eq": 1}}),
        ({"Odd name": 1}, {"Odd name": {"eq": 1}}),
    ],
)
def test_filters_are_keywords(given: Any, filters: Any) -> None:
    assert parse_filters("t", given) == filters


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "t: it needs a filter such as id=7"),
        ({"a": 1, "a__eq": 2}, "t: a__eq= says the same about a twice"),
        ({"a__gt": None}, "t: a__gt: nothing compares with None"),
        ({"a__is_null": 1}, "t: a__is_null is True or False, got 1"),
        ({"a__in": "text"}, "t: a__in takes a list of values, got 'text'"),
        ({"a__in": None}, "t: a__in takes a list of values, got None"),
        ({"a": b"x"}, "t: a: bytes cannot be sent to the database"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(given: Any, says: str) -> None:
    with pytest.raises(NonRetriableError) as caught:
        parse_filters("t", given)

    assert str(caught.value).startswith(says)
