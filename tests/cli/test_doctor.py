"""`stepbase doctor`: a set-up that works, and each thing around an engine that can be wrong."""

from typing import Any

import pytest
from tests.cli.conftest import OTHER_KEY, SIGNING_KEY, StartEngine, Type
from tests.conftest import Connect
from tests.support.engine_client import EngineClient
from tests.support.fake_api import Received, fake_api
from tests.support.gateway import running_gateway
from tests.support.stub_host import StubHost


@pytest.fixture
def found(type_in: Type) -> Any:
    """Ask the doctor: `await found()` gives exit code, and state and text by what was looked at."""

    async def ask(*words: str) -> tuple[int, dict[str, tuple[str, str]]]:
        said = await type_in("doctor", "--json", *words)
        return said.code, {each["what"]: (each["state"], each["text"]) for each in said.data}

    return ask


async def test_a_set_up_that_works(
    engine: EngineClient, database: str, found: Any, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_gateway(database) as gateway:
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
        code, seen = await found()
        said = await type_in("doctor")

    assert {what: state for what, (state, _) in seen.items()} == {
        "keys": "warning",  # dev mode
        "database": "ok",
        "session": "ok",
        "clock": "ok",
        "schema": "ok",
        "rights": "ok",
        "apps": "warning",  # none is registered
        "takes events": "ok",
        "outbox": "ok",
        "queue": "ok",
        "grants": "ok",
        "engine": "ok",
        "Supabase API": "ok",
    }, seen
    assert (code, said.code) == (0, 0)
    assert seen["takes events"][1] == "1 engine" and engine.url in seen["engine"][1]
    assert len(said.out.splitlines()) == len(seen) and "\x1b" not in said.out


async def test_an_unreachable_database_still_has_the_rest_looked_at(found: Any) -> None:
    code, seen = await found("--database", "postgresql://127.0.0.1:1/x")

    assert code == 1 and "cannot be reached" in seen["database"][1]
    assert {"engine", "Supabase API"} <= set(seen)


async def test_two_kinds_of_readers_are_one_too_many(
    engine: EngineClient, database: str, connect: Connect, found: Any
) -> None:
    relay = await connect()
    await relay.execute("select stepbase.outbox_read_as('relay')")

    code, seen = await found("--database", database)

    assert code == 1 and seen["takes events"][0] == "broken"
    assert "1 engine, 1 stepbase relay: each gets a part" in seen["takes events"][1]


async def test_a_copy_of_the_database_is_told(
    database: str, connect: Connect, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await connect()).execute("select stepbase.outbox_claim('original')")
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.2:1")  # nobody answers there
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")

    code, seen = await found("--database", database)

    assert code == 1 and seen["project"][0] == "broken"
    assert "belongs to 'original', not to '127.0.0.2:1'" in seen["project"][1]
    assert "disarm_copy" in seen["project"][1]


async def test_nobody_takes_events_and_the_outbox_fills(
    database: str, connect: Connect, found: Any
) -> None:
    connection = await connect()
    await connection.execute(
        "select stepbase.emit('a/b', '{}');"
        "update stepbase.outbox set due_at = stepbase.now() - interval '5 minutes';"
        "select stepbase.emit('a/c', '{}', 'dead-1');"
        "update stepbase.outbox set dead_at = stepbase.now(), error = 'HTTP 401: no such key'"
        " where id = 'dead-1'"
    )

    code, seen = await found("--database", database)

    assert code == 1
    assert (
        seen["takes events"][0] == "warning" and "start stepbase engine" in seen["takes events"][1]
    )
    assert seen["outbox"][0] == "broken" and "has been due for 30" in seen["outbox"][1]
    assert (
        "1 events will not be tried again; the last because: HTTP 401: no such key"
        in (seen["dead letters"][1])
    )
    assert "stepbase outbox requeue --all" in seen["dead letters"][1]


async def test_late_timers_failed_syncs_and_paused_functions(
    shop: EngineClient, host: StubHost, connect: Connect, database: str, found: Any, type_in: Type
) -> None:
    [asleep] = await shop.send({"name": "shop/sleeps"})
    await shop.opened(asleep, "sleep")
    await type_in("pause", "shop-order", "shop-sleeps")
    connection = await connect()
    await connection.execute(
        "update stepbase.apps set error = 'function x has no trigger';"
        "update stepbase.queue set due_at = stepbase.now() - interval '1 hour', ready = false"
    )

    _, seen = await found()

    assert seen["sync of shop"] == (
        "broken",
        f"failed: function x has no trigger; mend it and have it register again (PUT {host.url})",
    )
    assert seen["functions"][0] == "warning" and "shop-order, shop-sleeps" in seen["functions"][1]


async def test_timers_that_nobody_looks_at(
    database: str, connect: Connect, start_engine: StartEngine, host: StubHost, found: Any
) -> None:
    connection = await connect()
    async with start_engine() as (client, _):
        host.handlers["app-f"] = lambda call: pytest.fail("is not called")
        await client.register(host.registration(host.function("app-f")))
        await client.request("POST", "/v1/functions/app-f/pause")
    async with start_engine() as (client, _):
        await client.send({"name": "app/f"})
    await connection.execute(
        "update stepbase.queue set due_at = stepbase.now() - interval '1 hour', ready = false"
    )

    code, seen = await found("--database", database)

    assert code == 1 and seen["queue"][0] == "broken"
    assert "no engine is running, or all are full" in seen["queue"][1]


async def test_grants_that_are_missing_or_too_many(
    database: str, connect: Connect, found: Any
) -> None:
    connection = await connect()
    await connection.execute(
        "revoke execute on function public.stepbase_record(json) from service_role;"
        "grant execute on function public.stepbase_record(json) to anon"
    )

    code, seen = await found("--database", database)

    assert code == 1
    assert "anon may execute stepbase_record" in seen["grants"][1]
    assert "service_role may not execute stepbase_record" in seen["grants"][1]


async def test_the_engine_that_people_ask(
    start_engine: StartEngine, database: str, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, nobody = await found("--database", database)
    _, away = await found("--database", database, "--url", "http://127.0.0.1:1")
    monkeypatch.setenv("INNGEST_SIGNING_KEY", OTHER_KEY)
    monkeypatch.setenv("INNGEST_EVENT_KEY", "ek")
    _, cloud = await found("--database", database)
    async with start_engine(signing_keys=(SIGNING_KEY,), event_keys=("ek",)) as (client, _):
        _, other = await found("--database", database, "--url", client.url)

    assert nobody["engine"][0] in ("warning", "ok")  # somebody may have one on the port of all
    assert away["engine"][0] == "broken" and "no engine answers" in away["engine"][1]
    assert cloud["engine"][0] == "ok" and "means Inngest Cloud" in cloud["engine"][1]
    assert other["engine"][0] == "broken"
    assert "INNGEST_SIGNING_KEY is not one of its keys" in other["engine"][1]


async def test_supabase_s_api(
    database: str, found: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, unset = await found("--database", database)
    with running_gateway(database) as gateway:
        monkeypatch.setenv("SUPABASE_URL", gateway.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_wrong")
        _, wrong = await found("--database", database)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.publishable)
        _, public = await found("--database", database)
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:1")
    _, away = await found("--database", database)

    assert (
        unset["Supabase API"][0] == "warning"
        and "SUPABASE_URL is not set" in (unset["Supabase API"][1])
    )
    assert "is not a key of this project" in wrong["Supabase API"][1]
    assert "not a publishable one" in public["Supabase API"][1]
    assert "does not answer" in away["Supabase API"][1]
    assert {each["Supabase API"][0] for each in (wrong, public, away)} == {"broken"}


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, {"code": "PGRST202", "message": "Could not find"}, "notify pgrst, 'reload schema'"),
        (540, "project paused", "is the project paused"),
        (404, "<html>", "is SUPABASE_URL a project's URL?"),
    ],
)
async def test_other_refusals_of_the_api(
    database: str,
    found: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: object,
    says: str,
) -> None:
    def answer(request: Received) -> tuple[int, object]:
        return status, body

    with fake_api(answer) as api:
        monkeypatch.setenv("SUPABASE_URL", api.url)
        monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
        _, seen = await found("--database", database)

    assert seen["Supabase API"][0] == "broken" and says in seen["Supabase API"][1]
