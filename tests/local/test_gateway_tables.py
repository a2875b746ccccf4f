"""Tables through the gateway, asked by the real supabase-py: filters, shapes, writes."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError
from tests.local.conftest import Call

Build = Callable[[Any], Any]

ANT, BEE, CAT = "ant", "Bee, (x)", 'cat"s'
ODD = 'odd "name, (x)'

FILTERS: list[tuple[str, Build, list[str]]] = [
    ("nothing", lambda q: q, [ANT, BEE, CAT]),
    ("eq", lambda q: q.eq("id", 1), [ANT]),
    ("eq of text with commas", lambda q: q.eq("name", BEE), [BEE]),
    ("eq of text with quotes", lambda q: q.eq("name", CAT), [CAT]),
    ("eq of a char(n)", lambda q: q.eq("code", "de"), [BEE]),
    ("eq of an enum", lambda q: q.eq("mood", "glad"), [ANT]),
    ("eq of a bigint", lambda q: q.eq("huge", 9223372036854775807), [ANT]),
    ("neq", lambda q: q.neq("size", 1), [BEE]),
    ("gt", lambda q: q.gt("size", 1), [BEE]),
    ("gte", lambda q: q.gte("amount", "1.10"), [ANT, BEE]),
    ("lt of a time", lambda q: q.lt("made", "2026-02-01T00:00:00Z"), [ANT]),
    ("lte", lambda q: q.lte("size", 20), [ANT, BEE]),
    ("like", lambda q: q.like("name", "%a%"), [ANT, CAT]),
    ("like with star", lambda q: q.like("name", "a*"), [ANT]),
    ("ilike", lambda q: q.ilike("name", "b%"), [BEE]),
    ("is null", lambda q: q.is_("size", None), [CAT]),
    ("is not null", lambda q: q.not_.is_("size", None), [ANT, BEE]),
    ("in", lambda q: q.in_("name", [ANT, BEE]), [ANT, BEE]),
    ("in of quotes", lambda q: q.in_("name", ['cat"s', "x"]), [CAT]),
    ("in of numbers", lambda q: q.in_("id", [1, 3]), [ANT, CAT]),
    ("in of nothing", lambda q: q.in_("id", []), []),
    ("not eq", lambda q: q.not_.eq("id", 1), [BEE, CAT]),
    ("not in", lambda q: q.not_.in_("id", [1, 2]), [CAT]),
    ("contains", lambda q: q.contains("tags", ["a"]), [ANT]),
    ("contained", lambda q: q.contained_by("tags", ["b", "c"]), [BEE]),
    ("overlaps", lambda q: q.overlaps("tags", ["a", "b"]), [ANT, BEE]),
    ("contains json", lambda q: q.contains("data", {"k": {"n": 2}}), [BEE]),
    ("range", lambda q: q.range_gt("span", (5, 9)), [BEE]),
    ("json path", lambda q: q.eq("data->k->>n", "2"), [BEE]),
    ("json path as json", lambda q: q.eq("data->k->n", "2"), [BEE]),
    ("json path into a list", lambda q: q.eq("data->l->1->>z", "q"), [ANT]),
    ("or", lambda q: q.or_("id.eq.1,size.is.null"), [ANT, CAT]),
    ("or of quoted values", lambda q: q.or_('name.eq."Bee, (x)",id.eq.1'), [ANT, BEE]),
    ("or with in", lambda q: q.or_('id.in.(1,2),name.in.("x","y,z")'), [ANT, BEE]),
    (
        "nested logic",
        lambda q: q.or_("and(size.gt.1,size.lt.30),not.and(id.gt.1,id.lt.9)"),
        [ANT, BEE],
    ),
    ("two filters", lambda q: q.gte("id", 2).lte("id", 2), [BEE]),
    ("like any", lambda q: q.like_any_of("name", "{a%,%t%}"), [ANT, CAT]),
    ("like all", lambda q: q.like_all_of("name", "{a%,%t}"), [ANT]),
    ("limit", lambda q: q.limit(2), [ANT, BEE]),
    ("range of rows", lambda q: q.range(1, 1), [BEE]),
    ("offset", lambda q: q.offset(2), [CAT]),
    ("text search", lambda q: q.text_search("name", "ant"), [ANT]),
]


@pytest.mark.parametrize(
    ("narrow", "expected"), [f[1:] for f in FILTERS], ids=[f[0] for f in FILTERS]
)
async def test_filters(things: None, call: Call, narrow: Build, expected: list[str]) -> None:
    answer = await call(lambda c: narrow(c.table("things").select("name")).order("id"))

    assert [row["name"] for row in answer.data] == expected


SELECTS: list[tuple[str, Any]] = [
    ("id,name", {"id": 1, "name": ANT}),
    ("alias:name", {"alias": ANT}),
    ("id::text", {"id": "1"}),
    ("a:amount::text", {"a": "1.10"}),
    ("made::date", {"made": "2026-01-01"}),
    ("size::double precision", {"size": 1}),
    ("tags::text[]", {"tags": ["a", "b"]}),
    ("data->k", {"k": {"n": 1}}),
    ("data->k->>n", {"n": "1"}),
    ("data->l->0", {"l": 1}),
    ("n:data->k->n::int", {"n": 1}),
    ("data->missing->>key", {"key": None}),
    ('"odd \\"name, (x)"', {ODD: "o"}),
    ("huge", {"huge": 9223372036854775807}),
    ("code", {"code": "abc"}),
]


@pytest.mark.parametrize(("select", "expected"), SELECTS, ids=[s[0] for s in SELECTS])
def test_select_lists(things: None, rest: httpx.Client, select: str, expected: object) -> None:
    answer = rest.get("/things", params={"select": select, "id": "eq.1"})

    assert answer.status_code == 200, answer.text
    assert answer.json() == [expected]


ORDERS: list[tuple[str, list[int]]] = [
    ("id", [1, 2, 3]),
    ("id.desc", [3, 2, 1]),
    ("size", [1, 2, 3]),
    ("size.nullsfirst", [3, 1, 2]),
    ("size.desc", [3, 2, 1]),
    ("size.desc.nullslast", [2, 1, 3]),
    ("data->k->>n.desc.nullslast", [2, 1, 3]),
    ("mood.desc.nullslast,id", [2, 1, 3]),
]


@pytest.mark.parametrize(("order", "expected"), ORDERS)
def test_orders(things: None, rest: httpx.Client, order: str, expected: list[int]) -> None:
    answer = rest.get("/things", params={"select": "id", "order": order})

    assert [row["id"] for row in answer.json()] == expected


async def test_select_counts(things: None, call: Call) -> None:
    answer = await call(lambda c: c.table("things").select("id", count="exact").limit(1))
    head = await call(lambda c: c.table("things").select("id", count="exact", head=True))

    assert (len(answer.data), answer.count) == (1, 3)
    assert head.count == 3


async def test_single_and_maybe_single(things: None, call: Call) -> None:
    one = await call(lambda c: c.table("things").select("name").eq("id", 1).single())
    none = await call(lambda c: c.table("things").select("name").eq("id", 9).maybe_single())

    assert one.data == {"name": ANT}
    assert none is None or none.data is None
    with pytest.raises(APIError) as failure:
        await call(lambda c: c.table("things").select("name").single())
    assert failure.value.code == "PGRST116"
    assert failure.value.details == "The result contains 3 rows"


async def test_insert_returns_rows_with_defaults(things: None, call: Call) -> None:
    answer = await call(
        lambda c: c.table("things").insert({"name": "dog", "amount": "7.005", "data": {"a": [1]}})
    )

    (row,) = answer.data
    assert (row["id"], row["amount"], row["data"], row["secret"]) == (4, 7.01, {"a": [1]}, "hidden")


async def test_insert_many_and_count(things: None, call: Call) -> None:
    answer = await call(
        lambda c: c.table("things").insert([{"name": "x"}, {"name": "y"}], count="exact")
    )

    assert [row["name"] for row in answer.data] == ["x", "y"]
    assert answer.count == 2


async def test_insert_of_different_keys_needs_columns(things: None, call: Call) -> None:
    # The client lists the union of the keys in `columns`; a key left out is null.
    answer = await call(
        lambda c: c.table("things").insert([{"name": "x", "size": 5}, {"name": "y"}])
    )

    assert [row["size"] for row in answer.data] == [5, None]


async def test_insert_can_use_defaults_for_missing_keys(things: None, call: Call) -> None:
    rows = [{"name": "x", "secret": "known"}, {"name": "y"}]

    answer = await call(lambda c: c.table("things").insert(rows, default_to_null=False))

    assert [row["secret"] for row in answer.data] == ["known", "hidden"]


async def test_update_changes_matching_rows(things: None, call: Call) -> None:
    answer = await call(lambda c: c.table("things").update({"size": 7, "tags": ["z"]}).gt("id", 1))

    assert [(row["id"], row["size"], row["tags"]) for row in answer.data] == [
        (2, 7, ["z"]),
        (3, 7, ["z"]),
    ]


async def test_upsert_merges_on_the_primary_key(things: None, call: Call) -> None:
    rows = [{"a": 1, "b": "x", "value": 1}, {"a": 2, "b": "y", "value": 2}]
    await call(lambda c: c.table("pairs").upsert(rows))

    answer = await call(lambda c: c.table("pairs").upsert([{"a": 1, "b": "x", "value": 9}]))
    ignored = await call(
        lambda c: c.table("pairs").upsert({"a": 2, "b": "y", "value": 9}, ignore_duplicates=True)
    )
    left = await call(lambda c: c.table("pairs").select("value").order("a"))

    assert answer.data == [{"a": 1, "b": "x", "value": 9}]
    assert ignored.data == []
    assert left.data == [{"value": 9}, {"value": 2}]


async def test_upsert_on_another_key(things: None, call: Call) -> None:
    answer = await call(
        lambda c: c.table("things").upsert({"name": ANT, "size": 99}, on_conflict="name")
    )

    assert [(row["id"], row["size"]) for row in answer.data] == [(1, 99)]


async def test_delete_returns_what_is_gone(things: None, call: Call) -> None:
    answer = await call(lambda c: c.table("things").delete(count="exact").in_("id", [1, 2]))
    left = await call(lambda c: c.table("things").select("id"))

    assert ([row["id"] for row in answer.data], answer.count) == ([1, 2], 2)
    assert left.data == [{"id": 3}]


async def test_views_and_other_schemas(things: None, call: Call) -> None:
    glad = await call(lambda c: c.table("glad_things").select("*"))
    await call(lambda c: c.schema("other").table("elsewhere").insert({"n": 1}))
    elsewhere = await call(lambda c: c.schema("other").table("elsewhere").select("n"))

    assert glad.data == [{"id": 1, "name": ANT}]
    assert elsewhere.data == [{"n": 1}]


REPLIES: list[tuple[str, str, str, dict[str, str], Any, int, dict[str, str], Any]] = [
    # name, method, url, headers, body -> status, headers, body
    (
        "read",
        "GET",
        "/things?select=id&limit=2",
        {},
        None,
        200,
        {"content-range": "0-1/*"},
        [{"id": 1}, {"id": 2}],
    ),
    (
        "read with count",
        "GET",
        "/things?select=id&limit=2",
        {"prefer": "count=exact"},
        None,
        206,
        {"content-range": "0-1/3"},
        [{"id": 1}, {"id": 2}],
    ),
    (
        "read all with count",
        "GET",
        "/things?select=id",
        {"prefer": "count=exact"},
        None,
        200,
        {"content-range": "0-2/3"},
        [{"id": 1}, {"id": 2}, {"id": 3}],
    ),
    (
        "range header",
        "GET",
        "/things?select=id&order=id",
        {"range": "1-1"},
        None,
        200,
        {"content-range": "1-1/*"},
        [{"id": 2}],
    ),
    (
        "open range header",
        "GET",
        "/things?select=id&order=id",
        {"range": "2-"},
        None,
        200,
        {"content-range": "2-2/*"},
        [{"id": 3}],
    ),
    ("empty", "GET", "/things?id=eq.9", {}, None, 200, {"content-range": "*/*"}, []),
    (
        "odd column",
        "GET",
        '/things?select=id&"odd%20\\"name,%20(x)"=eq.p',
        {},
        None,
        200,
        {},
        [{"id": 3}],
    ),
    (
        "odd column in logic",
        "GET",
        '/things?select=id&or=("odd%20\\"name,%20(x)".eq.p,id.eq.1)&order=id',
        {},
        None,
        200,
        {},
        [{"id": 1}, {"id": 3}],
    ),
    (
        "head",
        "HEAD",
        "/things",
        {"prefer": "count=exact"},
        None,
        200,
        {"content-range": "0-2/3"},
        None,
    ),
    (
        "single",
        "GET",
        "/things?select=id&id=eq.1",
        {"accept": "application/vnd.pgrst.object+json"},
        None,
        200,
        {"content-type": "application/vnd.pgrst.object+json; charset=utf-8"},
        {"id": 1},
    ),
    (
        "insert, nothing asked for",
        "POST",
        "/pairs",
        {},
        {"a": 1, "b": "x"},
        201,
        {"content-range": "*/*"},
        None,
    ),
    (
        "insert, headers only",
        "POST",
        "/pairs",
        {"prefer": "return=headers-only"},
        {"a": 1, "b": "x y"},
        201,
        {"location": "/pairs?a=eq.1&b=eq.x%20y"},
        None,
    ),
    (
        "insert of nothing",
        "POST",
        "/pairs",
        {"prefer": "return=representation"},
        [],
        201,
        {"preference-applied": "return=representation"},
        [],
    ),
    (
        "insert of defaults",
        "POST",
        "/deferred",
        {"prefer": "return=representation"},
        {},
        201,
        {},
        [{"n": None}],
    ),
    (
        "update, nothing asked for",
        "PATCH",
        "/things?id=eq.1",
        {},
        {"size": 5},
        204,
        {"content-range": "0-0/*"},
        None,
    ),
    (
        "update of nothing",
        "PATCH",
        "/things?id=eq.9",
        {"prefer": "return=representation"},
        {"size": 5},
        200,
        {"content-range": "*/*"},
        [],
    ),
    ("update without columns", "PATCH", "/things?id=eq.1", {}, {}, 204, {}, None),
    (
        "delete, nothing asked for",
        "DELETE",
        "/things?id=eq.1",
        {"prefer": "count=exact"},
        None,
        204,
        {"content-range": "*/1"},
        None,
    ),
    (
        "rollback",
        "POST",
        "/pairs",
        {"prefer": "tx=rollback,return=representation"},
        {"a": 7, "b": "x", "value": 3},
        201,
        {},
        [{"a": 7, "b": "x", "value": 3}],
    ),
    ("preflight", "OPTIONS", "/things", {}, None, 200, {"access-control-allow-origin": "*"}, None),
]


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "status", "expected_headers", "expected"),
    [r[1:] for r in REPLIES],
    ids=[r[0] for r in REPLIES],
)
def test_replies(
    things: None,
    rest: httpx.Client,
    method: str,
    url: str,
    headers: dict[str, str],
    body: object,
    status: int,
    expected_headers: dict[str, str],
    expected: object,
) -> None:
    answer = rest.request(method, url, headers=headers, json=body)

    assert answer.status_code == status, answer.text
    assert {name: answer.headers.get(name) for name in expected_headers} == expected_headers
    assert (answer.json() if answer.content else None) == expected


def test_rollback_keeps_nothing(things: None, rest: httpx.Client) -> None:
    rest.post("/pairs", json={"a": 7, "b": "x"}, headers={"prefer": "tx=rollback"})

    assert rest.get("/pairs").json() == []


def test_single_write_of_several_rows_is_undone(things: None, rest: httpx.Client) -> None:
    headers = {"accept": "application/vnd.pgrst.object+json", "prefer": "return=representation"}

    answer = rest.patch("/things?id=gt.1", json={"size": 50}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
    assert rest.get("/things?size=eq.50").json() == []
