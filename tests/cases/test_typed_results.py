"""Results come back as what their annotations say, also from where JSON has no word for them."""

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from tests.cases.conftest import Drive
from tests.support.sdk_calls import event

from stepbase import App, Event, Step, SyncStep

app = App("case")


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    amount: Decimal
    at: datetime


class Order(BaseModel):
    id: UUID
    total: int
    lines: list[Line]


@dataclass
class Point:
    x: int
    when: date


AT = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)
ORDER = Order(id=UUID(int=7), total=2**60, lines=[Line(amount=Decimal("10.50"), at=AT)])
VALUES: dict[str, tuple[Any, Any]] = {
    "model": (ORDER, Order),
    "models": ([ORDER], list[Order]),
    "dataclass": (Point(1, date(2030, 1, 31)), Point),
    "datetime": (AT, datetime),
    "date": (date(2030, 1, 31), date),
    "timedelta": (timedelta(days=-1, microseconds=1), timedelta),
    "decimal": (Decimal("12345678901234567890.1234"), Decimal),
    "uuid": (UUID(int=1), UUID),
    "enum": (Colour.RED, Colour),
    "big integer": (-(2**200), int),
    "big integers": ([1, 2**53 + 1], list[int]),
    "set": ({1, 2}, set[int]),
    "tuple": ((1, "a"), tuple[int, str]),
    "whole float": (1.0, float),
    "keys": ({7: "seven"}, dict[int, str]),
    "optional": (None, UUID | None),
    "plain": ({"a": [1, 2.5, None, True, "ü"]}, dict),
    "digits in text": ("12345678901234567890", str),
}


def value_of(name: str) -> Any:
    return VALUES[name][0]


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, str]], step: Step) -> bool:
    name = event.data["name"]
    found = await step.run("value", value_of, name, returns=VALUES[name][1])
    return bool(found == value_of(name) and type(found) is type(value_of(name)))


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, str]], step: SyncStep) -> bool:
    name = event.data["name"]
    found = step.run("value", value_of, name, returns=VALUES[name][1])
    return bool(found == value_of(name) and type(found) is type(value_of(name)))


@pytest.mark.parametrize("name", VALUES)
async def test_a_value_comes_back_equal_and_of_its_type(drive: Drive, name: str) -> None:
    run = await drive(event(data={"name": name}))

    assert run.output is True, run.ops or run.error
