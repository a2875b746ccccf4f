"""SQL functions through the gateway: arguments, overloads, results, errors."""

from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError
from tests.local.conftest import Call

RESULTS: list[tuple[str, dict[str, Any], Any]] = [
    ("add", {"a": 1, "b": 2}, 3),
    ("add", {"a": 1}, 11),
    ("nothing", {}, []),
    ("no_value", {}, None),
    ("big_int", {}, 9223372036854775807),
    ("numbers", {"upto": 3}, [1, 2, 3]),
    ("numbers", {"upto": 0}, []),
    ("rows", {"upto": 2}, [{"n": 1, "square": 1}, {"n": 2, "square": 4}]),
    ("one_pair", {}, {"a": 1, "b": "x", "value": 2}),
    ("out_args", {"a": 1}, {"b": 2, "c": "c"}),
    ("echo", {"any": [1, {"x": None}]}, {"any": [1, {"x": None}]}),
    (
        "arrays",
        {"xs": [1, 2, 3], "js": {"a": [True]}, "at": "2026-01-01T00:00:00Z", "m": "sad"},
        {"sum": 6, "js": {"a": [True]}, "m": "sad"},
    ),
    (
        "arrays",
        {"xs": None, "js": None, "at": None, "m": None},
        {"sum": None, "js": None, "m": None},
    ),
    ("total", {"xs": [1, 2, 3]}, 6),
    ("over", {"a": 1}, "int"),
    ("over", {"a": 1, "b": 1}, "two"),
    ("over", {"c": "x"}, "text"),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), RESULTS)
async def test_results(call: Call, name: str, arguments: dict[str, Any], expected: object) -> None:
    answer = await call(lambda c: c.rpc(name, arguments))

    assert answer.data == expected


async def test_get_converts_its_arguments(call: Call) -> None:
    added = await call(lambda c: c.rpc("add", {"a": 2, "b": 3}, get=True))
    rows = await call(lambda c: c.rpc("rows", {"upto": 2}, get=True))

    assert added.data == 5
    assert rows.data == [{"n": 1, "square": 1}, {"n": 2, "square": 4}]


def test_get_takes_arrays_and_variadic(rest: httpx.Client) -> None:
    array = rest.get("/rpc/arrays", params={"xs": "{1,2}", "js": "{}", "at": "now", "m": "glad"})
    variadic = rest.get("/rpc/total?xs=1&xs=5")

    assert array.json()["sum"] == 3
    assert variadic.json() == 6


async def test_rows_of_a_function_can_be_filtered(call: Call) -> None:
    answer = await call(lambda c: c.rpc("rows", {"upto": 9}).select("n").gt("square", 50))

    assert answer.data == [{"n": 8}, {"n": 9}]


def test_numbers_keep_every_digit(rest: httpx.Client) -> None:
    assert rest.post("/rpc/big", json={}).text == "12345678901234567890.123456789"


REPLIES: list[tuple[str, str, str, dict[str, str], Any, int, str]] = [
    ("void", "POST", "/rpc/nothing", {}, None, 204, ""),
    ("null", "POST", "/rpc/no_value", {}, {}, 200, "null"),
    ("set of scalars", "POST", "/rpc/numbers", {}, {"upto": 1}, 200, "[1]"),
    (
        "single of a set",
        "POST",
        "/rpc/rows",
        {"accept": "application/vnd.pgrst.object+json"},
        {"upto": 1},
        200,
        '{"n":1,"square":1}',
    ),
    (
        "single scalar of a set",
        "POST",
        "/rpc/numbers",
        {"accept": "application/vnd.pgrst.object+json"},
        {"upto": 1},
        200,
        "1",
    ),
    ("head", "HEAD", "/rpc/add?a=1", {}, None, 200, ""),
    ("own status and headers", "POST", "/rpc/set_response", {}, {}, 202, '"ok"'),
]


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "status", "text"),
    [r[1:] for r in REPLIES],
    ids=[r[0] for r in REPLIES],
)
def test_replies(
    rest: httpx.Client,
    method: str,
    url: str,
    headers: dict[str, str],
    body: object,
    status: int,
    text: str,
) -> None:
    answer = rest.request(method, url, headers=headers, json=body)

    assert (answer.status_code, answer.text) == (status, text)


def test_sql_sets_headers(rest: httpx.Client) -> None:
    answer = rest.post("/rpc/set_response", json={})

    assert answer.headers["x-mine"] == "a b"
    assert answer.headers["content-type"] == "text/x"


def test_rows_are_limited_and_counted(rest: httpx.Client) -> None:
    answer = rest.post("/rpc/rows?limit=2&offset=1", json={"upto": 9})
    most = rest.post("/rpc/numbers", json={"upto": 1500})

    assert [row["n"] for row in answer.json()] == [2, 3]
    assert answer.headers["content-range"] == "1-2/*"
    assert len(most.json()) == 1000


ERRORS: list[tuple[str, str, str, Any, int, str, str]] = [
    # name, method, url, body -> status, code, part of the message
    ("no such function", "POST", "/rpc/ad", {"a": 1}, 404, "PGRST202", "public.ad(a)"),
    (
        "no such function without arguments",
        "POST",
        "/rpc/nope",
        {},
        404,
        "PGRST202",
        "public.nope without parameters",
    ),
    ("wrong arguments", "POST", "/rpc/add", {"x": 1}, 404, "PGRST202", "public.add(x)"),
    ("missing argument", "POST", "/rpc/add", {"b": 1}, 404, "PGRST202", "public.add(b)"),
    ("arguments in a list", "POST", "/rpc/add", [1], 404, "PGRST202", "public.add"),
    ("ambiguous", "POST", "/rpc/twice", {"a": 1}, 300, "PGRST203", "a => integer"),
    ("bad argument", "POST", "/rpc/add", {"a": "x"}, 400, "22P02", "integer"),
    ("method", "DELETE", "/rpc/add", None, 405, "PGRST101", "DELETE"),
    ("write by GET", "GET", "/rpc/add_thing?name=x", None, 405, "25006", "read-only"),
    ("write in a stable function", "POST", "/rpc/sneaky_write", {}, 405, "25006", "read-only"),
    ("at commit", "POST", "/rpc/late_failure", {}, 409, "23505", "each number once"),
    ("own error", "POST", "/rpc/custom_error", {}, 418, "MINE", "no tea"),
    ("own timeout", "POST", "/rpc/impatient", {}, 500, "57014", "timeout"),
]


@pytest.mark.parametrize(
    ("method", "url", "body", "status", "code", "message"),
    [e[1:] for e in ERRORS],
    ids=[e[0] for e in ERRORS],
)
def test_errors(
    things: None,
    rest: httpx.Client,
    method: str,
    url: str,
    body: object,
    status: int,
    code: str,
    message: str,
) -> None:
    answer = rest.request(method, url, json=body)

    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert message in error["message"]


def test_own_error_brings_its_headers(rest: httpx.Client) -> None:
    answer = rest.post("/rpc/custom_error", json={})

    assert answer.headers["x-tea"] == "none"
    assert answer.json() == {"code": "MINE", "message": "no tea", "details": "d", "hint": "h"}


SQLSTATES = [
    ("P0001", 400), ("PT418", 418), ("PT404", 404), ("23505", 409), ("23503", 409), ("23514", 400),
    ("22023", 400), ("25006", 405), ("28000", 403), ("40001", 500), ("40P01", 500), ("42501", 403),
    ("42883", 404), ("42P01", 404), ("42P17", 500), ("53400", 500), ("53300", 503), ("55P03", 500),
    ("57014", 500), ("58030", 500), ("08006", 503), ("XX000", 500), ("P0002", 500), ("HV000", 500),
    ("0LP01", 403), ("SB001", 400), ("54000", 500),
]  # fmt: skip


@pytest.mark.parametrize(("sqlstate", "status"), SQLSTATES)
def test_sqlstates_become_statuses(rest: httpx.Client, sqlstate: str, status: int) -> None:
    answer = rest.post("/rpc/fail", json={"state": sqlstate, "message": "it broke"})

    assert answer.status_code == status
    assert answer.json() == {
        "code": sqlstate,
        "message": "it broke",
        "details": "the detail",
        "hint": "the hint",
    }


async def test_supabase_py_reads_the_error(call: Call) -> None:
    with pytest.raises(APIError) as failure:
        await call(lambda c: c.rpc("fail", {"state": "P0001", "message": "no"}))

    error = failure.value
    assert (error.code, error.message, error.details, error.hint) == (
        "P0001",
        "no",
        "the detail",
        "the hint",
    )


def test_nothing_of_a_request_is_left_for_the_next(rest: httpx.Client) -> None:
    for _ in range(3):
        assert rest.post("/rpc/leave_settings", json={}).status_code == 204
        who = rest.post("/rpc/whoami", json={}).json()
        assert (who["user"], who["uid"], who["timeout"]) == ("service_role", None, "8s")
        assert rest.post("/rpc/add_thing", json={"name": "x"}, headers={"prefer": "tx=rollback"})


def test_a_functions_own_timeout_is_in_place_before_it_begins(rest: httpx.Client) -> None:
    assert rest.post("/rpc/slow_but_patient", json={}).json() == "77s"
    assert rest.post("/rpc/whoami", json={}).json()["timeout"] == "8s"


def test_request_is_visible_to_sql(rest: httpx.Client) -> None:
    headers = {"user-agent": "me", "cookie": "c=v"}

    posted = rest.post("/rpc/whoami", json={}, headers=headers).json()
    got = rest.get("/rpc/whoami", headers=headers).json()

    assert (posted["method"], posted["path"]) == ("POST", "/rpc/whoami")
    assert (got["method"], got["agent"], got["cookie"]) == ("GET", "me", "v")
    # A stable function may only read, whoever calls it.
    assert (posted["read_only"], got["read_only"]) == ("on", "on")
