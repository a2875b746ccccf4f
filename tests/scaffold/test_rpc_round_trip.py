"""The generated module at work: its calls reach the SQL functions over the REST API, and come back typed."""

import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from tests.support.gateway import running_gateway

from stepbase import App, RpcCall, Step
from stepbase.scaffold.rpc_catalogue import Catalogue
from stepbase.scaffold.rpc_module import make_module
from stepbase.scaffold.rpc_settings import RpcSettings
from stepbase.supabase import client
from stepbase.testing import Lab

_USER = UUID("6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca")
_NOON = datetime(2027, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

Do = Callable[[RpcCall[Any]], Awaitable[Any]]


@pytest.fixture
def calls(catalogue: Catalogue, settings: RpcSettings) -> ModuleType:
    """The module, imported as a user's program would."""
    settings.output.write_text(make_module(catalogue, settings, {}).text)
    spec = importlib.util.spec_from_file_location("generated_calls", settings.output)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks names up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def do(shapes: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Do]:
    """Make a call as a step of a run; returns its result as the step does."""
    app = App("caller")
    wanted: list[RpcCall[Any]] = []
    got: list[Any] = []

    @app.function("call")
    async def call(step: Step) -> None:
        got.append(await step.rpc(wanted[0]))

    with running_gateway(shapes, size=2, schemas=("public",)) as gateway:
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        async with Lab(app, real_rpc=True) as lab:

            async def make(made: RpcCall[Any]) -> Any:
                wanted[:], got[:] = [made], []
                run = await lab.start(call)
                assert run.status == "completed", run
                return got[0]

            yield make
        await client.aclose()


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("bool", True),
        ("int4", 7),
        ("int8", 9_223_372_036_854_775_807),
        ("numeric", Decimal("123456789012345678901234567890.10")),
        ("float8", 0.1),
        ("text", 'snow ☃ "quoted"'),
        ("uuid", _USER),
        ("date", date(2027, 3, 1)),
        ("time", time(12, 30)),
        ("timestamptz", _NOON),
        ("jsonb", {"a": [None, 1.5]}),
        ("text[]", ["a,b", 'c"d']),
        ("numeric[]", [Decimal("1.10"), Decimal(2)]),
        ("uuid[]", [_USER]),
        ("shapes.mood", 'it\'s "so-so"'),
        ("shapes.mood[]", ["sad", "glad"]),
        ("shapes.positive", 5),
    ],
)
async def test_a_value_goes_in_and_comes_out_as_it_was(
    calls: ModuleType, do: Do, sql: str, value: Any
) -> None:
    name = "echo_" + "".join(each if each.isalnum() else "_" for each in sql)

    back = await do(getattr(calls, name)(p=value))

    assert back == value
    assert type(back) is type(value)


async def test_composites_go_in_and_come_out_as_models(calls: ModuleType, do: Do) -> None:
    amounts = [calls.Amount(cents=2**60, currency="EUR"), calls.Amount()]

    assert await do(calls.echo_shapes_amount__(p=amounts)) == amounts


async def test_an_interval_goes_in_as_a_timedelta(calls: ModuleType, do: Do) -> None:
    assert await do(calls.echo_interval(p=timedelta(hours=26))) == "26:00:00"


async def test_results_of_every_shape_come_back(calls: ModuleType, do: Do) -> None:
    assert await do(calls.nothing()) is None
    assert await do(calls.many_numbers(p_upto=3)) == [1, 2, 3]
    assert (await do(calls.one_item(p_id=1))).feeling == "glad"
    assert [item.price for item in await do(calls.all_items())] == [Decimal("1.50"), None]
    assert await do(calls.prices()) == [calls.PricesRow(item="pen", price=Decimal("1.50"))]
    assert await do(calls.one_column()) == [calls.OneColumnRow(n=7)]
    assert await do(calls.split(p_text="word")) == calls.SplitResult(head="w", length=4)
    assert await do(calls.grow(p_by=3)) == calls.GrowResult(p_by=6)
    assert (await do(calls.twin()), await do(calls.shapes_twin())) == (2, 1)


async def test_odd_columns_come_back_under_their_other_names(calls: ModuleType, do: Do) -> None:
    [row] = await do(calls.all_odd())

    assert (row.class_, row.two_words, row.column_private) == (1, "x", 2)
    assert (row.json_, row.column_model_name) == ("{}", "m")


async def test_what_is_not_given_keeps_its_default(calls: ModuleType, do: Do) -> None:
    assert await do(calls.defaults(a=1)) == "1-d-null"
    assert await do(calls.defaults(a=1, b="x", c=2)) == "1-x-2"
    assert await do(calls.class_(from_=1, two_words="", int_=2, RpcCall_=3)) == 6
    assert await do(calls.args(args=1, args_=2)) == 3


async def test_overloads_reach_the_function_they_are_named_after(calls: ModuleType, do: Do) -> None:
    assert await do(calls.find()) == "any"
    assert await do(calls.find__p_id(p_id=1)) == "by id"
    assert await do(calls.find__p_name(p_name="x")) == "by name"
