"""`POST /v0/gql`: no document makes the engine read or write more than an answer may take."""

import asyncio
import json

import pytest
from tests.conftest import Connect
from tests.engine.test_graphql import ask
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost

# 200 KiB each, so that the hundreds of copies asked for are some 80 MiB; and what one of them is asked by.
LARGE = "x" * (200 * 1024)
LARGE_VALUES = {
    "raw": 'event(query: {eventId: "EVENT"}) { FIELD: raw }',
    "payload": 'event(query: {eventId: "EVENT"}) { FIELD: payload }',
    "raw of a list": "events(query: {}) { FIELD: raw }",
    "raw of EventV2": 'eventV2(id: "EVENT") { FIELD: raw }',
    "output": 'run(runID: "RUN") { FIELD: output }',
    "payloads": 'runTrigger(runID: "RUN") { FIELD: payloads }',
    "data": 'runTraceSpanOutputByID(outputID: "RUN") { FIELD: data }',
}


@pytest.mark.parametrize("asked", LARGE_VALUES.values(), ids=LARGE_VALUES)
async def test_a_document_that_asks_for_a_large_value_many_times(
    client: EngineClient, host: StubHost, asked: str
) -> None:
    host.handlers["app-f"] = lambda call: Answer(200, LARGE)
    await client.register(host.registration(host.function("app-f")))
    [event_id] = await client.send({"name": "app/f", "data": {"text": LARGE}})
    run = await client.result(event_id)
    asked = asked.replace("EVENT", event_id).replace("RUN", run["run_id"])
    field = asked[asked.index("FIELD") : -2]
    many = " ".join(field.replace("FIELD", f"a{n}") for n in range(390))

    once = await ask(client, f"{{ {asked.replace('FIELD', 'one')} }}")
    status, answer = await client.request(
        "POST", "/v0/gql", {"query": f"{{ {asked.replace(field, many)} }}"}
    )

    assert LARGE in json.dumps(once)
    assert (status, answer["data"]) == (422, None)
    [problem] = answer["errors"]
    assert problem["message"] == (
        "the query needs more than 33554432 bytes: ask for fewer things at once"
    )


async def test_a_document_that_finds_large_rows_at_many_roots(client: EngineClient) -> None:
    await client.send(*({"name": "a/b", "data": {"text": LARGE}} for _ in range(10)))
    few, many = (
        "{" + " ".join(f"a{n}: events(query: {{}}) {{ id }}" for n in range(count)) + "}"
        for count in (2, 20)
    )

    found = await ask(client, few)
    status, answer = await client.request("POST", "/v0/gql", {"query": many})

    assert [len(each) for each in found.values()] == [10, 10]
    assert (status, answer["data"]) == (422, None)
    assert "needs more than 33554432 bytes" in answer["errors"][0]["message"]


@pytest.mark.parametrize("field", ["id", "__typename"])
async def test_a_document_that_asks_for_small_fields_of_very_many_things(
    client: EngineClient, connect: Connect, field: str
) -> None:
    connection = await connect()
    for number in range(20):
        [event_id] = await client.send({"name": "a/b", "data": {"n": number}})
        await connection.execute(
            """insert into stepbase.runs
                 (run_id, function_id, fn_version, event_id, status, created_at, ended_at)
               select $1 || n, gen_random_uuid(), 1, $1, 'Completed', now(), now()
                 from generate_series(1, 100) n""",
            event_id,
        )
    many = " ".join(f"a{n}: {field}" for n in range(390))

    async with asyncio.timeout(30):
        status, answer = await client.request(
            "POST", "/v0/gql", {"query": f"{{ stream(query: {{}}) {{ runs {{ {many} }} }} }}"}
        )

    assert (status, answer["data"]) == (422, None)
    assert "needs more than 33554432 bytes" in answer["errors"][0]["message"]


async def test_lists_are_whole_though_they_are_looked_up_in_parts(client: EngineClient) -> None:
    ids = [(await client.send({"name": "a/b", "data": {"n": n}}))[0] for n in range(23)]
    ids.reverse()
    query = """query ($limit: Int, $after: ID, $before: ID) {
      stream(query: {limit: $limit, after: $after, before: $before}) { id }
    }"""

    async def listed(**bounds: object) -> list[str]:
        return [each["id"] for each in (await ask(client, query, **bounds))["stream"]]

    assert await listed(limit=100) == ids
    assert await listed(limit=21) == ids[:21]
    assert await listed(limit=20) == ids[:20]
    assert await listed(limit=100, after=ids[2], before=ids[19]) == ids[3:19]
    assert await listed(limit=12, after=ids[2], before=ids[19]) == ids[3:15]
    assert [
        each["id"] for each in (await ask(client, "{ events(query: {}) { id } }"))["events"]
    ] == ids
