"""What the gateway refuses about tables, with which status, code and words."""

from typing import Any

import httpx
import pytest

ERRORS: list[tuple[str, str, str, dict[str, str], Any, int, str, str]] = [
    # name, method, url, headers, body -> status, code, part of the message
    ("no such table", "GET", "/thingz", {}, None, 404, "PGRST205", "'public.thingz'"),
    ("no such column in a filter", "GET", "/things?nope=eq.1", {}, None, 400, "42703", "nope"),
    ("no such column in a select", "GET", "/things?select=nope", {}, None, 400, "42703", "nope"),
    ("no such column in a body", "POST", "/things", {}, {"nope": 1}, 400, "PGRST204", "'nope'"),
    ("bad number", "GET", "/things?id=eq.x", {}, None, 400, "22P02", "x"),
    ("bad enum", "GET", "/things?mood=eq.x", {}, None, 400, "22P02", "mood"),
    ("too big", "GET", "/things?size=eq.99999999999", {}, None, 400, "22003", "out of range"),
    ("no operator", "GET", "/things?id=1", {}, None, 400, "PGRST100", "id"),
    ("unknown operator", "GET", "/things?id=equals.1", {}, None, 400, "PGRST100", "equals"),
    ("bad is", "GET", "/things?id=is.1", {}, None, 400, "PGRST100", "is.1"),
    ("bad in", "GET", "/things?id=in.1", {}, None, 400, "PGRST100", "list"),
    ("bad logic", "GET", "/things?or=id.eq.1", {}, None, 400, "PGRST100", "logic"),
    ("empty logic", "GET", "/things?or=()", {}, None, 400, "PGRST100", "logic"),
    ("bad logic item", "GET", "/things?or=(id)", {}, None, 400, "PGRST100", "logic"),
    ("bad quantifier", "GET", "/things?id=eq(some).{1}", {}, None, 400, "PGRST100", "some"),
    ("bad limit", "GET", "/things?limit=x", {}, None, 400, "PGRST100", "limit"),
    ("bad order", "GET", "/things?order=id.asc.desc", {}, None, 400, "PGRST100", "order"),
    ("bad path", "GET", "/things?select=data->>a->b", {}, None, 400, "PGRST100", "path"),
    ("bad cast", "GET", "/things?select=id::int;drop", {}, None, 400, "PGRST100", "cast"),
    ("no such type", "GET", "/things?select=id::nope", {}, None, 400, "42704", "nope"),
    ("embedding", "GET", "/things?select=id,pairs(a)", {}, None, 400, "PGRST200", "pairs(a)"),
    (
        "filter on a related table",
        "GET",
        "/things?pairs.a=eq.1",
        {},
        None,
        400,
        "PGRST200",
        "pairs.a",
    ),
    (
        "offset too far",
        "GET",
        "/things?offset=9",
        {"prefer": "count=exact"},
        None,
        416,
        "PGRST103",
        "range",
    ),
    ("range upside down", "GET", "/things", {"range": "5-1"}, None, 416, "PGRST103", "range"),
    ("unique", "POST", "/things", {}, {"name": "ant"}, 409, "23505", "duplicate key"),
    ("check", "POST", "/things", {}, {"name": "x", "size": -1}, 400, "23514", "check"),
    ("not null", "POST", "/things", {}, {"size": 1}, 400, "23502", "null"),
    ("too long", "POST", "/things", {}, {"name": "x", "code": "abcd"}, 400, "22001", "too long"),
    ("several keys", "POST", "/things", {}, [{"name": "x"}, {"size": 1}], 400, "PGRST102", "match"),
    ("no object", "POST", "/things", {}, 5, 400, "PGRST102", "object"),
    (
        "update by a list",
        "PATCH",
        "/things?id=eq.1",
        {},
        [{"size": 1}],
        400,
        "PGRST102",
        "one object",
    ),
    ("update of all", "PATCH", "/things", {}, {"size": 1}, 400, "21000", "WHERE"),
    ("delete of all", "DELETE", "/things", {}, None, 400, "21000", "WHERE"),
    ("no such schema", "GET", "/things", {"accept-profile": "auth"}, None, 406, "PGRST106", "auth"),
    ("no such format", "GET", "/things", {"accept": "text/csv"}, None, 406, "PGRST107", "text/csv"),
    ("method", "PUT", "/things?id=eq.1", {}, {"id": 1}, 405, "PGRST117", "PUT"),
    ("no such path", "GET", "/a/b", {}, None, 404, "PGRST125", "path"),
    ("root", "GET", "/", {}, None, 404, "PGRST126", "Root"),
    ("no grant", "GET", "/private", {}, None, 403, "42501", "permission denied"),
    ("nul in a url", "GET", "/things?name=eq.%00", {}, None, 400, "PGRST100", "NUL"),
    ("nul in a body", "POST", "/things", {}, {"name": "a\0b"}, 400, "22P05", "Unicode"),
]


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "status", "code", "message"),
    [e[1:] for e in ERRORS],
    ids=[e[0] for e in ERRORS],
)
def test_errors(
    things: None,
    rest: httpx.Client,
    method: str,
    url: str,
    headers: dict[str, str],
    body: object,
    status: int,
    code: str,
    message: str,
) -> None:
    answer = rest.request(method, url, headers=headers, json=body)

    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert message in error["message"]
    assert set(error) == {"code", "details", "hint", "message"}
    assert answer.headers["proxy-status"] == f"PostgREST; error={code}"


def test_body_that_is_no_json(things: None, rest: httpx.Client) -> None:
    broken = rest.post("/things", content=b"{", headers={"content-type": "application/json"})
    form = rest.post("/things", content=b"a=1", headers={"content-type": "text/csv"})

    assert (broken.status_code, broken.json()["code"]) == (400, "PGRST102")
    assert (form.status_code, form.json()["code"]) == (415, "PGRST107")
