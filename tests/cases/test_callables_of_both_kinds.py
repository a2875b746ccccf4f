"""step.run takes async and plain callables in both kinds of handlers; plain ones do not block."""

import asyncio
import threading
from functools import partial

from tests.cases.conftest import Drive

from stepbase import App, Step, SyncStep

app = App("case")
threads: list[int] = []


async def slow_double(n: int, *, plus: int = 0) -> int:
    await asyncio.sleep(0)
    return n * 2 + plus


def double(n: int, *, plus: int = 0) -> int:
    threads.append(threading.get_ident())
    return n * 2 + plus


class Doubler:
    def __call__(self, n: int) -> int:
        return double(n)

    async def later(self, n: int) -> int:
        return await slow_double(n)


@app.function("async", on="case/start")
async def handler(step: Step) -> list[int]:
    threads.append(threading.get_ident())
    doubler = Doubler()
    return [
        await step.run("async", slow_double, 1, plus=1),
        await step.run("plain", double, 2, plus=1),
        await step.run("partial", partial(slow_double, plus=1), 3),
        await step.run("object", doubler, 4),
        await step.run("method", doubler.later, 5),
        await step.run("lambda", lambda: slow_double(6)),
    ]


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> list[int]:
    doubler = Doubler()
    return [
        step.run("async", slow_double, 1, plus=1),
        step.run("plain", double, 2, plus=1),
        step.run("partial", partial(slow_double, plus=1), 3),
        step.run("object", doubler, 4),
        step.run("method", doubler.later, 5),
        step.run("lambda", lambda: slow_double(6)),
    ]


async def test_every_kind_of_callable_runs(drive: Drive, kind: str) -> None:
    threads.clear()

    run = await drive()

    assert run.output == [3, 5, 7, 8, 10, 12]
    assert kind == "sync" or len(set(threads)) > 1
