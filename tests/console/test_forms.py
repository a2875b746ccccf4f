"""Forms made of schemas, and what is typed into them: without a browser."""

import json
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from stepbase.console import form, typed
from stepbase.protocol.redact import SHOWN


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Place(BaseModel):
    city: str
    zip: str | None = None


class Order(BaseModel):
    """As many kinds of fields as there are."""

    id: int = Field(ge=1, description="The order's number")
    price: float = Field(gt=0)
    total: Decimal = Decimal("0")
    name: str = Field(min_length=2, max_length=5)
    paid: bool
    size: Size
    fate: Literal["ok", "lost"] = "ok"
    at: datetime
    who: UUID | None = None
    ship_to: Place
    bill_to: Place | None = None
    lines: list[int] = []
    either: int | list[str] | None = None
    extra: dict[str, Any] = {}
    nothing: int | None


MADE = form.controls(Order.model_json_schema())
GOOD = {
    "data.id": "7", "data.price": "1.5", "data.name": "Ann", "data.paid": "true", "data.size": '"l"',
    "data.at": "2026-11-24T09:30", "data.ship_to.city": "Chiang Mai",
}  # fmt: skip


def made() -> tuple[form.Control, ...]:
    """Return the form of an order."""
    assert MADE is not None
    return MADE


def test_each_field_has_the_control_of_its_kind() -> None:
    kinds = {each.label: each.kind for each in made()}

    assert kinds == {
        "id": "integer", "price": "number", "total": "text", "name": "text", "paid": "boolean",
        "size": "choice", "fate": "choice", "at": "time", "who": "text", "ship_to": "group",
        "bill_to": "group", "lines": "json", "either": "json", "extra": "json", "nothing": "integer",
    }  # fmt: skip
    by_name = {each.label: each for each in made()}
    assert by_name["id"].hint == "The order's number; at least 1"
    assert by_name["size"].choices == ('"s"', '"l"') and by_name["fate"].preset == '"ok"'
    assert [each.path for each in by_name["ship_to"].parts] == [
        "data.ship_to.city", "data.ship_to.zip"
    ]  # fmt: skip
    required = {each.label for each in made() if each.is_required}
    assert required == {"id", "price", "name", "paid", "size", "at", "ship_to", "nothing"}


def test_what_is_right_is_an_event_its_class_takes() -> None:
    read = typed.read(made(), {**typed.presets(made()), **GOOD})

    assert read.errors == {}
    assert "bill_to" not in read.data and read.data["nothing"] is None
    order = Order.model_validate_json(json.dumps(read.data))
    assert (order.id, order.size, order.ship_to.city) == (7, Size.LARGE, "Chiang Mai")
    assert order.at.isoformat() == "2026-11-24T09:30:00+00:00"


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("data.id", "seven", "a whole number"), ("data.id", "1.5", "a whole number"),
        ("data.id", "0", "at least 1"), ("data.id", "", "is required"), ("data.price", "0", "more than 0"),
        ("data.price", "nan", "a number"), ("data.price", "1e999", "a number"),
        ("data.total", "much", "a number"), ("data.name", "A", "at least 2 characters"),
        ("data.name", "Annabel", "at most 5 characters"), ("data.paid", "yes", "true or false"),
        ("data.size", '"xl"', "one of"), ("data.at", "noon", "a time as"), ("data.who", "me", "a UUID"),
        ("data.ship_to.city", "", "is required"), ("data.bill_to.zip", "1", None),
        ("data.lines", "[1,", "is not JSON"), ("data.lines", "{}", "a list"),
        ("data.extra", "[]", "an object"), ("data.nothing", "x", "a whole number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_stands(path: str, text: str, said: str | None) -> None:
    read = typed.read(made(), {**GOOD, path: text})

    if said is None:  # half an address: the other half is missing
        assert read.errors == {"data.bill_to.city": "is required"}
    else:
        assert list(read.errors) == [path] and said in read.errors[path]


def test_a_form_is_filled_with_an_events_data_but_not_with_its_secrets() -> None:
    data = typed.read(made(), GOOD).data | {"name": SHOWN, "unknown": 1}

    filled = typed.typed_of(made(), data)

    assert "data.name" not in filled and filled["data.at"] == "2026-11-24T09:30:00"
    assert filled["data.size"] == '"l"' and filled["data.ship_to.city"] == "Chiang Mai"
    assert typed.left_out(made(), data) == ["unknown"]


def test_a_schema_of_itself_ends() -> None:
    schema: dict[str, object] = {
        "$defs": {"Tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Tree"}}}},
        "$ref": "#/$defs/Tree",
    }
    made = form.controls(schema)

    depth = 0
    while made:
        depth, made = depth + 1, made[0].parts
    assert depth == 4


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "array"}, {"type": "object"}, {"properties": {}}, {"properties": 7},
     {"$ref": "#/nowhere"}, {"properties": {str(i): {} for i in range(500)}}],
)  # fmt: skip
def test_what_makes_no_form_makes_none(schema: dict[str, object]) -> None:
    assert form.controls(schema) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "anyOf", "$ref", "enum", "default", "required", "x"]
            ),
            each,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["properties", "$defs", "required", "$ref"]), _JSON))
def test_no_schema_breaks_the_page(schema: dict[str, object]) -> None:
    made = form.controls(schema)

    assert made is None or isinstance(typed.read(made, typed.presets(made)).errors, dict)


@given(st.integers(1, 10**30), st.text("ab ü<&", min_size=2, max_size=5))
def test_what_was_sent_once_can_be_sent_again(number: int, name: str) -> None:
    data = typed.read(made(), {**GOOD, "data.id": str(number), "data.name": name}).data

    assert typed.read(made(), typed.typed_of(made(), data)).data == data


def one(**schema: object) -> form.Control:
    """Return the control of one property, `x`."""
    made = form.controls({"properties": {"x": schema}})
    assert made is not None
    return made[0]


@pytest.mark.parametrize(
    ("format", "value", "kept_by"),
    [
        ("date-time", "2026-11-24T09:30:00", "datetime-local"),
        ("date-time", "2026-11-24T09:30:00.125000", "text"), ("date-time", "noon", "text"),
        ("date-time", "2026-13-24T09:30", "text"), ("date-time", "", "datetime-local"),
        ("date", "2026-11-24", "date"), ("date", "2026-02-30", "text"), ("date", "soon", "text"),
        ("", "two\nlines", "textarea"), ("", "one line", "text"), ("email", "a@b", "email"),
    ],
)  # fmt: skip
def test_a_value_stands_in_an_input_that_keeps_it(format: str, value: str, kept_by: str) -> None:
    assert form.input_for(one(type="string", format=format), value) == kept_by


@given(st.text("ab\n", min_size=1, max_size=9))
def test_lines_come_back_from_a_browser_as_they_were(text: str) -> None:
    control = one(type="string")

    read = typed.read([control], {"data.x": text.replace("\n", "\r\n")})

    assert read.data == {"x": text}


@pytest.mark.parametrize("at", ["2026-11-24T09:30:00.123456Z", "2026-11-24T09:30:00.120Z"])
def test_no_part_of_a_second_is_lost(at: str) -> None:
    control = one(type="string", format="date-time")

    filled = typed.typed_of([control], {"x": at})
    read = typed.read([control], filled)

    assert (form.input_for(control, filled["data.x"]) == "text") == at.endswith("456Z")
    assert datetime.fromisoformat(str(read.data["x"])) == datetime.fromisoformat(at)


def test_a_time_before_the_first_year_is_said() -> None:
    control, early = one(type="string", format="date-time"), "0001-01-01T00:00:00+05:00"

    assert typed.typed_of([control], {"x": early}) == {"data.x": early}
    assert "must be a time" in typed.read([control], {"data.x": early}).errors["data.x"]


@pytest.mark.parametrize("bound", [12_345_678, 0.1234567891])
def test_a_bound_is_said_exactly(bound: float) -> None:
    read = typed.read([one(type="number", minimum=bound)], {"data.x": "0"})

    assert read.errors == {"data.x": f"must be at least {bound}"}
