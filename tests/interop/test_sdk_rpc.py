"""step.rpc through supabase-py, the REST gateway and the ledger, down to a real Postgres."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import BaseModel
from tests.support import mini_server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.mini_server import Run
from tests.support.sdk_calls import Reply, call_body, event, hashed
from tests.support.sdk_hosts import HOSTS, open_host
from tests.support.server import Server

from stepbase import App, Event, RpcCall, Step, SyncStep
from stepbase.local import migrate
from stepbase.sdk import background
from stepbase.supabase import client

FUNCTIONS = (Path(__file__).parent / "rpc_functions.sql").read_text()
BIG = 2**60
NUMERIC = Decimal("12345678901234567890.123456789")
app = App("rpc")


class Note(BaseModel):
    id: int
    body: str


CALLS: dict[str, tuple[Any, Any]] = {
    "numeric": (RpcCall("echo_numeric", {"p_value": NUMERIC}, Decimal), NUMERIC),
    "bigint": (RpcCall("echo_bigint", {"p_value": BIG}, int), BIG),
    "rows": (RpcCall("note_rows", {}, list[Note]), []),
    "void": (RpcCall("nothing", {}), None),
    "json": (RpcCall("echo", {"p_value": {"a": [1, 2.5, None, "ü"]}}), {"a": [1, 2.5, None, "ü"]}),
    "optional": (RpcCall("echo", {"p_value": None}, UUID | None), None),
}


def options(data: dict[str, Any]) -> dict[str, Any]:
    return {k: data[k] for k in ("id", "key", "as_user", "timeout") if k in data}


@app.function("async", on="case/start")
async def handler(event: Event[dict[str, Any]], step: Step) -> Any:
    data = event.data
    if "call" in data:
        call, expected = CALLS[data["call"]]
        return await step.rpc(call) == expected
    return await step.rpc(data["function"], data["args"], **options(data))


@app.function("sync", on="case/start")
def sync_handler(event: Event[dict[str, Any]], step: SyncStep) -> Any:
    data = event.data
    if "call" in data:
        call, expected = CALLS[data["call"]]
        return step.rpc(call) == expected
    return step.rpc(data["function"], data["args"], **options(data))


@dataclass
class Project:
    """A database behind its gateway, and the app that calls it."""

    db: asyncpg.Connection
    gateway: RunningGateway
    drive: Any
    call: Any


@pytest.fixture(scope="module")
def dsn(cluster: Server, template: str) -> Iterator[str]:
    """A migrated database with the functions of this file."""
    name = asyncio.run(cluster.create(template))
    asyncio.run(migrate.apply_files(cluster.dsn(name), {"9_rpc_functions.sql": FUNCTIONS}))
    yield cluster.dsn(name)
    asyncio.run(cluster.drop(name))


@pytest.fixture(scope="module")
def gateway(dsn: str) -> Iterator[RunningGateway]:
    with running_gateway(dsn) as running:
        yield running


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host() -> str:
    return "asgi"


@pytest.fixture
async def project(
    dsn: str,
    gateway: RunningGateway,
    kind: str,
    host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Project]:
    monkeypatch.setenv("INNGEST_DEV", "1")
    monkeypatch.setenv("SUPABASE_URL", gateway.url)
    monkeypatch.setenv("SUPABASE_SECRET_KEY", gateway.keys.secret)
    ask = open_host(host, app, tmp_path)
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "truncate public.notes, public.secrets, stepbase.ledger restart identity"
    )

    async def post(query: str, body: bytes) -> Reply:
        return await ask("POST", query=query, body=body)

    async def drive(data: dict[str, Any], **more: Any) -> Run:
        return await mini_server.finish(post, f"rpc-{kind}", event(data=data), **more)

    async def call(data: dict[str, Any], **more: Any) -> Reply:
        body = call_body(event(data=data), **more)
        return await post(f"fnId=rpc-{kind}&stepId=step", body)

    yield Project(connection, gateway, drive, call)
    await connection.close()
    await client.aclose()
    client.close()
    background.stop()


ADD = {"function": "add_note", "args": {"p_body": "hello"}}


async def notes(project: Project) -> int:
    found = await project.db.fetchval("select count(*) from public.notes")
    assert isinstance(found, int)
    return found


class _Searched:
    """Stands last among the finders: asked only for modules that nobody has."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.names.append(name)


async def test_no_call_looks_for_modules_that_are_not_installed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """httpcore imports sniffio four times a request; each time in vain cost 0.15 ms."""
    await project.drive(ADD)
    searched = _Searched()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, searched])

    await project.drive(ADD)

    assert searched.names == []


@pytest.mark.parametrize("host", HOSTS)
async def test_a_call_runs_and_its_step_is_named_after_the_function(project: Project) -> None:
    run = await project.drive(ADD)

    assert run.shown == ["StepRun add_note"]
    assert run.output == 1
    assert run.ops[0]["id"] == hashed("add_note")


async def test_a_repeated_attempt_gets_the_first_result(project: Project) -> None:
    first = await project.call(ADD)
    again = await project.call(ADD, attempt=1)

    assert first.op["data"] == again.op["data"] == 1
    assert await notes(project) == 1


async def test_a_business_key_holds_over_runs(project: Project) -> None:
    keyed = {**ADD, "key": "award:1", "id": "award"}

    one = await project.drive(keyed, run_id="01M84KVXAAXFDZB1D48JGNR1MA")
    two = await project.drive(keyed, run_id="01M84KVXAAXFDZB1D48JGNR1MB")

    assert one.output == two.output == 1
    assert one.shown == ["StepRun award"]
    assert await notes(project) == 1


async def test_without_a_key_each_run_has_its_own_effect(project: Project) -> None:
    one = await project.drive(ADD, run_id="01M84KVXAAXFDZB1D48JGNR1MA")
    two = await project.drive(ADD, run_id="01M84KVXAAXFDZB1D48JGNR1MB")

    assert (one.output, two.output) == (1, 2)


async def test_the_same_key_with_other_arguments_is_final_and_names_them(
    project: Project,
) -> None:
    await project.drive({**ADD, "key": "k"})

    run = await project.drive({"function": "add_note", "args": {"p_body": "other"}, "key": "k"})

    assert run.shown == ["StepFailed add_note"]
    assert "p_body" in run.error["message"]
    assert await notes(project) == 1


@pytest.mark.parametrize("name", CALLS)
async def test_typed_results_come_back_exactly(project: Project, name: str) -> None:
    run = await project.drive({"call": name})

    assert run.output is True, run.ops or run.error


@pytest.mark.parametrize("code", ["P0001", "22012", "23505", "PT402", "SB099"])
async def test_errors_that_cannot_come_out_differently_are_final(
    project: Project, code: str
) -> None:
    data = {"function": "fail_with", "args": {"p_code": code, "p_message": "balance too low"}}

    reply = await project.call(data)

    assert reply.op["op"] == "StepFailed"
    assert reply.headers["x-inngest-no-retry"] == "true"
    assert reply.op["error"]["name"] == "NonRetriableError"
    assert reply.op["error"]["message"] == "balance too low"


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("40001", "two transactions were in each other's way"),
        ("55P03", "waited too long for a lock"),
        ("57014", "longer than the statement timeout"),
        ("53200", "away or overloaded"),
        ("XX000", ""),
    ],
)
async def test_errors_that_may_pass_are_tried_again(project: Project, code: str, hint: str) -> None:
    data = {"function": "fail_with", "args": {"p_code": code, "p_message": "not now"}}

    reply = await project.call(data)

    assert reply.op["op"] == "StepError"
    assert "x-inngest-no-retry" not in reply.headers
    message = reply.op["error"]["message"]
    assert message.startswith("fail_with: not now") and code in message and hint in message


async def test_a_function_that_is_not_there_yet_is_tried_again(project: Project) -> None:
    reply = await project.call({"function": "not_there_yet", "args": {"p_a": 1}})

    assert reply.op["op"] == "StepError"
    assert "apply the migrations" in reply.op["error"]["message"]


async def test_a_missing_grant_is_tried_again_with_the_statement(project: Project) -> None:
    reply = await project.call({"function": "forbidden", "args": {}})

    assert reply.op["op"] == "StepError"
    assert "grant execute on function" in reply.op["error"]["message"]


async def test_a_refused_key_is_tried_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_SECRET_KEY", "sb_secret_expired")

    reply = await project.call(ADD)

    assert reply.op["op"] == "StepError"
    assert "check SUPABASE_SECRET_KEY" in reply.op["error"]["message"]
    assert "sb_secret_expired" not in reply.content.decode()


async def test_a_read_only_database_is_tried_again(project: Project) -> None:
    reply = await project.call({"function": "write_read_only", "args": {}})

    assert reply.op["op"] == "StepError"
    assert "the database is read-only: a failover" in reply.op["error"]["message"]
    assert "x-stepbase-outage" not in reply.headers


async def test_without_a_network_it_is_tried_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:1")

    reply = await project.call(ADD)

    assert reply.op["op"] == "StepError"
    assert "no answer from Supabase" in reply.op["error"]["message"]
    assert "check SUPABASE_URL" in reply.op["error"]["message"]
    # Away is not failed: our engine counts no attempt, so the step is not given up on the last one.
    assert reply.headers["x-stepbase-outage"] == "true"


async def test_without_settings_it_says_what_to_set(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUPABASE_URL")

    reply = await project.call(ADD)

    assert reply.op["op"] == "StepError"
    assert "SUPABASE_URL is not set" in reply.op["error"]["message"]


async def test_as_user_obeys_row_level_security(project: Project) -> None:
    mine, other = str(UUID(int=1)), str(UUID(int=2))

    def add(owner: str, key: str) -> dict[str, Any]:
        args = {"p_owner": owner, "p_body": "x"}
        return {"function": "add_secret", "args": args, "as_user": {"id": mine}, "key": key}

    allowed = await project.drive(add(mine, "mine"))
    refused = await project.call(add(other, "other"))

    assert allowed.shown == ["StepRun add_secret"]
    assert refused.op["op"] == "StepError"
    assert "row-level security" in refused.op["error"]["message"]
    assert await project.db.fetchval("select count(*) from public.secrets") == 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({**ADD, "as_user": {"email": "x"}}, "as_user= needs the user's claims"),
        ({**ADD, "key": ""}, "key= is text"),
        ({**ADD, "timeout": "soon"}, "timeout=: not a duration"),
        ({**ADD, "timeout": "0s"}, "timeout= must be positive"),
        ({**ADD, "args": {"p_body": "a\x00b"}}, "add_note: p_body: contains a NUL"),
        ({"function": "", "args": {}}, "the SQL function's name is empty"),
    ],
)
async def test_a_call_that_cannot_be_made_is_final(
    project: Project, data: dict[str, Any], says: str
) -> None:
    reply = await project.call(data)

    assert (reply.status, reply.headers["x-inngest-no-retry"]) == (500, "true")
    assert says in reply.body["message"]
