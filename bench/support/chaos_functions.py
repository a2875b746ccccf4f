"""The functions of the chaos benchmark: one for each shape of a run.

Two apps have them all, one with checkpointing and one without. A function's effects are rows of
`public.chaos_effects`, written by `step.rpc`: they tell what really happened, and how often. What should
have happened is in `chaos_shapes.py`.
"""

import asyncio
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from stepbase import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Context,
    Cron,
    Debounce,
    Event,
    FunctionFailed,
    NonRetriableError,
    Singleton,
    Step,
    StepError,
    SyncStep,
    Throttle,
)

Given = Event[dict[str, Any]]

CRONS = 6
KEYED_LIMIT = 2
LARGE_CHARS = 200_000
HUGE_CHARS = 2_500_000

SCHEMA = """
create table public.chaos_effects (
  id bigint generated always as identity primary key,
  case_no integer not null,
  name text not null,
  at timestamptz not null default clock_timestamp()
);
comment on table public.chaos_effects is 'What the functions of the chaos benchmark have done.';
alter table public.chaos_effects enable row level security;
create table public.chaos_rows (case_no integer not null, name text not null);
comment on table public.chaos_rows is 'The same, by step.table.';
alter table public.chaos_rows enable row level security;
create table public.chaos_strikes (
  slug text not null,
  instant timestamptz not null,
  primary key (slug, instant)
);
comment on table public.chaos_strikes is 'Which schedules were made to fire, and for when.';
alter table public.chaos_strikes enable row level security;

-- Notes effects; returns how many.
create function public.chaos_effect(p_cases integer[], p_names text[]) returns integer
  language plpgsql
  set search_path = ''
  as $$
begin
  insert into public.chaos_effects (case_no, name)
    select u.case_no, u.name from unnest(p_cases, p_names) as u (case_no, name);
  return cardinality(p_cases);
end
$$;
grant insert on public.chaos_effects to service_role;
grant select, insert on public.chaos_rows to service_role;
grant execute on function public.chaos_effect(integer[], text[]) to service_role;
"""


def _on(app: App) -> Callable[[str], str]:
    return lambda shape: f"{app.id}/{shape}"


def _args(event: Given, name: str) -> dict[str, object]:
    return {"p_cases": [event.data["case"]], "p_names": [name]}


async def _effect(step: Step, event: Given, name: str, key: str | None = None) -> None:
    await step.rpc("chaos_effect", _args(event, name), id=f"effect {name}", key=key)


def _refuse() -> None:
    raise NonRetriableError("refused")


async def _ask(url: str) -> str:
    """Ask over a plain connection: a client's preparations would count as time until the call."""
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    writer.write(f"GET {target.path} HTTP/1.0\r\nHost: {target.netloc}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def _draw() -> str:
    await asyncio.sleep(0.4)  # so that an engine that dies or hangs has such a call in flight
    return secrets.token_hex(4)


def _text(chars: int) -> str:
    return "x" * chars


def define(name: str, other: str, *, checkpointing: bool) -> App:
    """Return the app with every shape; `other` is the app it also invokes."""
    app = App(name, checkpointing=checkpointing)
    for add in (
        _plain, _large, _failing, _parallel, _racing, _asking, _waiting, _invoked, _invoking,
        _invoking_in_vain, _fanning_out, _cancelled, _starting,
    ):  # fmt: skip
        add(app, other)
    for number in range(CRONS):
        app.function(f"cron-{number}", on=Cron(f"{number} 3 29 2 *"))(_struck)
    return app


async def _struck(event: Given, step: Step, ctx: Context) -> None:
    """Note that a schedule has fired."""
    args = {"p_cases": [-1], "p_names": [f"{ctx.function.slug} {event.data['scheduledAt']}"]}
    await step.rpc("chaos_effect", args, id="effect")


def _plain(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("sequence", on=on("sequence"))
    async def sequence(event: Given, step: Step) -> int:
        total = 0
        for i in range(4):
            total += await step.run("add", abs, i)
        await _effect(step, event, "end")
        return total

    @app.function("sequence-sync", on=on("sequence-sync"))
    def sequence_sync(event: Given, step: SyncStep) -> int:
        total = sum(step.run("add", abs, i) for i in range(3))
        step.rpc("chaos_effect", _args(event, "end"), id="effect end")
        return total

    @app.function("sleepy", on=on("sleepy"))
    async def sleepy(event: Given, step: Step) -> str:
        await _effect(step, event, "before")
        await step.sleep("nap", event.data["nap"])
        await step.run("awake", str)
        await step.sleep("again", timedelta(milliseconds=300))
        await _effect(step, event, "after")
        return "awake"


def _large(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("large", on=on("large"))
    async def large(event: Given, step: Step) -> int:
        texts = [await step.run("text", _text, LARGE_CHARS) for _ in range(3)]
        await _effect(step, event, "end")
        return sum(map(len, texts))

    @app.function("huge", on=on("huge"))
    async def huge(event: Given, step: Step) -> int:
        texts = [await step.run("text", _text, HUGE_CHARS) for _ in range(2)]
        await _effect(step, event, "end")
        return sum(map(len, texts))

    @app.function("delayed", on=on("delayed"))
    async def delayed(event: Given, step: Step) -> str:
        await _effect(step, event, "end")
        return "came"

    @app.function("paid", on=on("paid"))
    async def paid(event: Given, step: Step) -> int:
        return await step.rpc(
            "chaos_effect",
            _args(event, "paid"),
            key=f"paid:{event.data['case']}",
            returns=int,
        )

    @app.function("token", on=on("token"))
    async def token(event: Given, step: Step) -> list[str]:
        """Draw a token: whatever is called twice, what was stored first must be what all else sees."""
        drawn = await step.run("draw", _draw)
        await _effect(step, event, drawn)
        return [drawn, await step.run("repeat", lambda: drawn)]

    @app.function("row", on=on("row"))
    async def row(event: Given, step: Step) -> int:
        values = {"case_no": event.data["case"], "name": "row"}
        return len(await step.table("row", "chaos_rows").insert(values))


def _failing(app: App, _other: str) -> None:
    on = _on(app)

    def fail_twice(attempt: int) -> str:
        if attempt < 2:
            raise ValueError("not yet")
        return "at last"

    @app.function("flaky", on=on("flaky"))
    async def flaky(event: Given, step: Step, ctx: Context) -> str:
        found = await step.run("flaky", fail_twice, ctx.attempt)
        if ctx.attempt == 0:
            raise ValueError("between the steps")
        await _effect(step, event, "end")
        return found

    @app.function("caught", on=on("caught"))
    async def caught(event: Given, step: Step) -> str:
        try:
            await step.run("refuse", _refuse)
        except StepError as error:
            await _effect(step, event, "undone")
            return error.message
        return "not refused"

    async def failed(event: Event[FunctionFailed[dict[str, Any]]], step: Step) -> None:
        args = {"p_cases": [event.data.event.data["case"]], "p_names": ["handled"]}
        await step.rpc("chaos_effect", args, id="effect")

    @app.function("doomed", on=on("doomed"), retries=1, on_failure=failed)
    async def doomed(event: Given, step: Step) -> None:
        await _effect(step, event, "before")
        raise ValueError("always")


def _parallel(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("parallel", on=on("parallel"))
    async def parallel(event: Given, step: Step) -> list[int]:
        async def branch(i: int) -> int:
            if i % 2:
                await step.sleep(f"nap {i}", "1s")
            await _effect(step, event, f"branch {i}")
            return await step.run(f"return {i}", abs, i)

        return await asyncio.gather(*(branch(i) for i in range(4)))

    @app.function("parallel-sync", on=on("parallel-sync"))
    def parallel_sync(event: Given, step: SyncStep) -> list[int]:
        def branch(i: int) -> int:
            step.rpc("chaos_effect", _args(event, f"branch {i}"), id=f"effect {i}")
            return i

        return list(step.parallel(lambda: branch(0), lambda: branch(1), lambda: branch(2)))


def _racing(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("race", on=on("race"))
    async def race(event: Given, step: Step) -> str:
        async def slow() -> str:
            await step.sleep("a long time", "1h")
            await _effect(step, event, "slow")
            return "slow"

        winner = await step.race(step.run("quick", lambda: "quick"), slow())
        await _effect(step, event, "after")
        return winner

    @app.function("close-race", on=on("close-race"))
    async def close_race(event: Given, step: Step) -> str:
        async def runner(name: str) -> str:
            await _effect(step, event, name)
            return name

        winner = await step.race(runner("a"), runner("b"))
        await _effect(step, event, "after")
        return winner


def _asking(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("held", on=on("held"))
    async def held(event: Given, step: Step) -> str:
        return await step.run("hold", _ask, f"{event.data['url']}/{event.data['case']}")

    @app.function("fetch", on=on("fetch"))
    async def fetch(event: Given, step: Step) -> list[object]:
        answer, other = await asyncio.gather(
            step.fetch("ask", event.data["url"]), step.run("beside", lambda: "beside")
        )
        await _effect(step, event, "end")
        return [answer.status, other]


def _waiting(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("wait", on=on("wait"))
    async def wait(event: Given, step: Step) -> str:
        await _effect(step, event, "before")
        came = await step.wait_for_event("go", on("go"), match="data.case", timeout="1h")
        await _effect(step, event, "after")
        return "got it" if came is not None else "time is up"

    @app.function("wait-if", on=on("wait-if"))
    async def wait_if(event: Given, step: Step) -> int:
        condition = "event.data.case == async.data.case && async.data.amount > 10"
        came = await step.wait_for_event("go", on("go"), if_=condition, timeout="1h")
        await _effect(step, event, "after")
        return -1 if came is None else int(came.data["amount"])

    @app.function("wait-timeout", on=on("wait-timeout"))
    async def wait_timeout(event: Given, step: Step) -> str:
        came = await step.wait_for_event("go", on("never"), match="data.case", timeout="1s")
        await _effect(step, event, "after")
        return "got it" if came is not None else "time is up"

    @app.function("wait-either", on=on("wait-either"))
    async def wait_either(event: Given, step: Step) -> str:
        came = await step.wait_for_event("go", on("go"), match="data.case", timeout="2s")
        await _effect(step, event, "after")
        return "got it" if came is not None else "time is up"

    @app.function("signal", on=on("signal"))
    async def signal(event: Given, step: Step) -> object:
        name = f"signal {event.data['case']}"
        came = await step.wait_for_signal("go", name, timeout="1h")
        await _effect(step, event, "after")
        return came.data if came is not None else None

    @app.function("waits-beside", on=on("waits-beside"))
    async def waits_beside(event: Given, step: Step) -> list[str]:
        async def one() -> str:
            came = await step.wait_for_event("go", on("go"), match="data.case", timeout="1h")
            return "got it" if came is not None else "time is up"

        async def two() -> str:
            came = await step.wait_for_event("never", on("never"), match="data.case", timeout="1s")
            return "got it" if came is not None else "time is up"

        found = await asyncio.gather(one(), two())
        await _effect(step, event, "after")
        return list(found)


def _invoked(app: App, _other: str) -> None:
    @app.function("child")
    async def child(event: Given, step: Step) -> int:
        await _effect(step, event, "child")
        return 2 * int(event.data["case"])

    @app.function("failing-child", retries=0)
    async def failing_child(event: Given, step: Step) -> None:
        await step.run("refuse", _refuse)

    @app.function("slow-child")
    async def slow_child(event: Given, step: Step) -> str:
        await step.sleep("a while", "8s")
        await _effect(step, event, "child")
        return "in time"


def _invoking(app: App, other: str) -> None:
    on = _on(app)

    @app.function("invoke", on=on("invoke"))
    async def invoke(event: Given, step: Step) -> int:
        found = await step.invoke("call", f"{other}-child", {"case": event.data["case"]})
        await _effect(step, event, "after")
        return int(found)

    @app.function("invoke-two", on=on("invoke-two"))
    async def invoke_two(event: Given, step: Step) -> list[object]:
        async def failing() -> str:
            try:
                await step.invoke(
                    "failing", f"{app.id}-failing-child", {"case": event.data["case"]}
                )
            except StepError:
                return "caught"
            return "not caught"

        found = await asyncio.gather(
            step.invoke("call", f"{app.id}-child", {"case": event.data["case"]}), failing()
        )
        await _effect(step, event, "after")
        return list(found)


def _invoking_in_vain(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("invoke-failing", on=on("invoke-failing"))
    async def invoke_failing(event: Given, step: Step) -> str:
        try:
            await step.invoke(
                "call", app.functions[f"{app.id}-failing-child"], {"case": event.data["case"]}
            )
        except StepError:
            await _effect(step, event, "caught")
            return "caught"
        return "not caught"

    @app.function("invoke-timeout", on=on("invoke-timeout"))
    async def invoke_timeout(event: Given, step: Step) -> str:
        try:
            data = {"case": event.data["case"]}
            found = str(
                await step.invoke("call", app.functions[f"{app.id}-slow-child"], data, timeout="1s")
            )
        except StepError:
            found = "too late"
        await _effect(step, event, "after")
        return found


def _fanning_out(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("leaf", on=on("leaf"))
    async def leaf(event: Given, step: Step) -> None:
        await _effect(step, event, f"leaf {event.data['leaf']}")

    @app.function("fan-out", on=on("fan-out"))
    async def fan_out(event: Given, step: Step) -> int:
        leaves = [Event(on("leaf"), {"case": event.data["case"], "leaf": i}) for i in range(4)]
        return len(await step.send_event("tell", leaves))


def _cancelled(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("stopped", on=on("stopped"), cancel_on=CancelOn(on("stop"), match="data.case"))
    async def stopped(event: Given, step: Step) -> None:
        await _effect(step, event, "before")
        await step.sleep("a long time", "1h")
        await _effect(step, event, "after")

    condition = "event.data.case == async.data.case && async.data.amount > 10"

    @app.function("stopped-if", on=on("stopped-if"), cancel_on=CancelOn(on("stop"), if_=condition))
    async def stopped_if(event: Given, step: Step) -> None:
        await asyncio.gather(
            _effect(step, event, "before"),
            step.sleep("a long time", "1h"),
            step.wait_for_event("never", on("never"), match="data.case", timeout="1h"),
        )
        await _effect(step, event, "after")


def _starting(app: App, _other: str) -> None:
    on = _on(app)

    @app.function("batch", on=on("batch"), batch=Batch(7, "1s"))
    async def batch(events: list[Given], step: Step) -> int:
        cases = [event.data["case"] for event in events]
        names = [f"part {event.data['part']}" for event in events]
        return await step.rpc(
            "chaos_effect", {"p_cases": cases, "p_names": names}, id="effect", returns=int
        )

    @app.function("debounce", on=on("debounce"), debounce=Debounce("1s", key="event.data.case"))
    async def debounce(event: Given, step: Step) -> None:
        await _effect(step, event, f"part {event.data['part']}")

    @app.function("throttle", on=on("throttle"), throttle=Throttle(20, "1s"))
    async def throttle(event: Given, step: Step) -> None:
        await _effect(step, event, "end")

    @app.function(
        "keyed",
        on=on("keyed"),
        concurrency=[Concurrency(KEYED_LIMIT, key="event.data.key"), Concurrency(8)],
    )
    async def keyed(event: Given, step: Step) -> int:
        found = [await step.run("work", abs, i) for i in range(2)]
        await _effect(step, event, "end")
        return sum(found)

    @app.function("single", on=on("single"), singleton=Singleton("event.data.case"))
    async def single(event: Given, step: Step) -> None:
        await step.sleep("a while", "1s")
        await _effect(step, event, f"part {event.data['part']}")

    @app.function("newest", on=on("newest"), singleton=Singleton("event.data.case", mode="cancel"))
    async def newest(event: Given, step: Step) -> None:
        await step.sleep("a while", "1s")
        await _effect(step, event, f"part {event.data['part']}")

    @app.function("once", on=on("once"), idempotency="event.data.case")
    async def once(event: Given, step: Step) -> None:
        await _effect(step, event, "end")
