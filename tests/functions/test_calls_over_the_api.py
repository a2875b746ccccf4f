"""The ledger as functions reach it: over the REST API, with the project's keys and users' tokens."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from tests.support.gateway import RunningGateway, running_gateway

_ANN = "6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"
_BOB = "0d2b1c7e-0a52-4f5a-9d7c-5f3f8e0f6a11"

_NOTES = f"""
create table public.notes (id int primary key, user_id uuid, body text);
alter table public.notes enable row level security;
create policy "own" on public.notes to authenticated using (user_id = auth.uid());
insert into public.notes values (1, '{_ANN}', 'a'), (2, '{_BOB}', 'b');
grant select, update on public.notes to authenticated, service_role;
create function public.edit_notes(p_body text) returns setof int language sql
  as 'update notes set body = p_body returning id';
grant execute on function public.edit_notes to authenticated, service_role;
create function public.exact(p_big bigint, p_amount numeric, out big bigint, out amount numeric)
  language sql immutable as 'select p_big, p_amount';
grant execute on function public.exact to service_role;
notify pgrst, 'reload schema';
"""


@pytest.fixture
async def api(database: str) -> AsyncIterator[RunningGateway]:
    """A gateway in front of a database with notes of two users."""
    connection = await asyncpg.connect(database)
    await connection.execute(_NOTES)
    await connection.close()
    with running_gateway(database, size=2) as running:
        yield running


async def post(
    api: RunningGateway, key: str, token: str | None = None, **parameters: Any
) -> httpx.Response:
    """Call `stepbase_call` with a key and, for a user, a token."""
    headers = {"apikey": key, "Authorization": f"Bearer {token or key}"}
    async with httpx.AsyncClient() as client:
        return await client.post(
            f"{api.url}/rest/v1/rpc/stepbase_call", headers=headers, json=parameters
        )


async def test_as_user_obeys_row_level_security(api: RunningGateway) -> None:
    edit: dict[str, Any] = {"p_function": "edit_notes", "p_args": {"p_body": "x"}}

    as_ann = await post(
        api, api.keys.secret, **edit, p_key="a", p_as_user={"sub": _ANN, "role": "authenticated"}
    )
    as_service = await post(api, api.keys.secret, **edit, p_key="s")

    assert json.loads(as_ann.json()) == {"data": [1], "replayed": False}
    assert sorted(json.loads(as_service.json())["data"]) == [1, 2]


async def test_the_second_call_over_another_connection_is_replayed(api: RunningGateway) -> None:
    edit: dict[str, Any] = {
        "p_function": "edit_notes",
        "p_args": {"p_body": "x"},
        "p_run_id": "r",
        "p_step": "s",
    }

    answers = [json.loads((await post(api, api.keys.secret, **edit)).json()) for _ in range(3)]

    assert [answer["replayed"] for answer in answers] == [False, True, True]
    assert answers[0]["data"] == answers[1]["data"] == answers[2]["data"]


async def test_big_and_exact_numbers_arrive_as_they_are(api: RunningGateway) -> None:
    answer = await post(
        api,
        api.keys.secret,
        p_function="exact",
        p_args={"p_big": "9223372036854775807", "p_amount": "0.10"},
    )

    assert answer.json() == '{"data": {"big":9223372036854775807,"amount":0.10}, "replayed": false}'


async def test_nobody_but_the_service_may_call(api: RunningGateway) -> None:
    keys = api.keys
    edit: dict[str, Any] = {"p_function": "edit_notes", "p_args": {"p_body": "x"}, "p_key": "k"}

    anon = await post(api, keys.publishable, **edit)
    user = await post(api, keys.publishable, keys.user_token(_ANN), **edit)

    for answer, status in ((anon, 401), (user, 403)):
        assert (answer.status_code, answer.json()["code"]) == (status, "42501")


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"p_function": "edit_notes", "p_args": {"p_body": "y"}, "p_key": "k"}, 400, "SB001"),
        ({"p_function": "pg_catalog.now", "p_key": "k"}, 400, "SB002"),
        ({"p_function": "edit_notes", "p_args": {"p_body": "y"}}, 400, "SB004"),
        ({"p_function": "edit_note", "p_key": "k"}, 404, "42883"),
    ],
)
async def test_refusals_keep_their_code(
    api: RunningGateway, parameters: dict[str, Any], status: int, code: str
) -> None:
    await post(api, api.keys.secret, p_function="edit_notes", p_args={"p_body": "x"}, p_key="k")

    answer = await post(api, api.keys.secret, **parameters)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
