"""What `app.api` and `app.api_sync` answer has types; mypy checks this file."""

from datetime import UTC, datetime
from typing import Any, assert_type

from stepbase import App, Event, EventData
from stepbase.sdk.questions import ReceivedEvent, Run

app = App("typed")


class Paid(EventData, name="order/paid"):
    order_id: int


@app.function("f", on=Paid)
def function() -> None: ...


async def ask() -> None:
    assert_type(await app.api.run("01R"), Run)
    assert_type(await app.api.runs("01E"), list[Run])
    assert_type(await app.api.cancel("01R"), None)
    (seen,) = await app.api.events(Paid)
    assert_type(seen, ReceivedEvent)
    assert_type(seen.event, Event[Any])
    assert_type(await app.api.signal("go", {"n": 1}), str | None)
    before = datetime(2026, 1, 1, tzinfo=UTC)
    assert_type(await app.api.cancel_runs(function, started_before=before), str)


def ask_sync() -> None:
    assert_type(app.api_sync.run("01R"), Run)
    assert_type(app.api_sync.runs("01E"), list[Run])
    assert_type(app.api_sync.event("01E"), ReceivedEvent)
    assert_type(app.api_sync.events("order/paid", limit=1), list[ReceivedEvent])
    assert_type(app.api_sync.signal("go"), str | None)


def test_both_faces_have_the_same_methods() -> None:
    def methods(face: object) -> set[str]:
        return {name for name in dir(face) if not name.startswith("_")}

    assert methods(app.api) == methods(app.api_sync)
    assert len(methods(app.api)) == 7
