"""A lab runs middleware as production does, and shows a test what encryption hides from servers."""

import json
from typing import Any

from stepbase import App, Event, Middleware, Step
from stepbase.middleware import EncryptionMiddleware
from stepbase.testing import Lab


class Noting(Middleware):
    """Writes down which hooks were called."""

    notes: list[str] = []

    def before_execution(self) -> None:
        self.notes.append("before_execution")

    def after_execution(self) -> None:
        self.notes.append("after_execution")


app = App("sealed", middleware=[EncryptionMiddleware.factory("a secret"), Noting])


@app.function("f", on="go")
async def f(event: Event[dict[str, Any]], step: Step) -> list[int]:
    first = await step.run("first", lambda: [1])
    second = await step.rpc("second", {"p_n": first[0]}, returns=list[int])
    await step.send_event("tell", Event("told", {"encrypted": second, "open": 1}))
    return first + second


async def test_results_are_sealed_for_the_server_and_open_for_the_test() -> None:
    Noting.notes.clear()
    async with Lab(app) as lab:
        lab.fake_rpc("second", lambda p_n: [p_n + 1])
        [run] = await lab.send(Event("go", {"encrypted": 1}))

    assert run.result == [1, 2]
    assert (run.steps["first"], run.steps["second"]) == ([1], [2])
    assert run.events_sent[0].data == {"encrypted": [2], "open": 1}
    on_the_server = json.dumps([dict(each.data) for each in lab.events if each.name == "told"])
    assert "__ENCRYPTED__" in on_the_server
    assert Noting.notes == ["before_execution", "after_execution"] * 4


async def test_sealed_results_are_compared_as_what_they_are() -> None:
    async with Lab(app, always_replay=True) as lab:
        lab.fake_rpc("second", [2])
        [run] = await lab.send(Event("go"))

    assert run.result == [1, 2]
