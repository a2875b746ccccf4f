"""What goes into a call and what comes out, type by type, to the byte.

Expected results are the text of the JSON that the answer carries: big integers and decimals must not
pass through a float on their way.
"""

import asyncpg
import pytest
from tests.support.sql import call

_TYPES = """
create type public.mood as enum ('glad', 'sad');
create type public.money_amount as (cents bigint, currency text);
create domain public.positive as int check (value > 0);
"""

_ECHO = [
    ("int", "7", "7"),
    ("int", '"7"', "7"),
    ("smallint", "-32768", "-32768"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("bigint", '"9223372036854775807"', "9223372036854775807"),
    ("numeric", "123456789012345678901234567890.10", "123456789012345678901234567890.10"),
    ("numeric", '"0.10"', "0.10"),
    ("numeric(10, 2)", "1.005", "1.005"),
    ("double precision", "0.1", "0.1"),
    ("real", "1e10", "1e+10"),
    ("boolean", "true", "true"),
    ("boolean", "null", "null"),
    ("text", '"snow ☃ \\n \\" \\\\"', '"snow ☃ \\n \\" \\\\"'),
    ("text", '""', '""'),
    ("text", "null", "null"),
    ("varchar", "7", '"7"'),
    ("character", '"abc"', '"abc"'),
    ("bit", '"101"', '"101"'),
    ("uuid", '"6F62AC6B-3EA5-4774-BFA3-AB7AA08B6ECA"', '"6f62ac6b-3ea5-4774-bfa3-ab7aa08b6eca"'),
    ("timestamptz", '"2027-03-01T12:00:00.123456+02:00"', '"2027-03-01T10:00:00.123456+00:00"'),
    ("timestamp", '"2027-03-01 12:00"', '"2027-03-01T12:00:00"'),
    ("date", '"2027-03-01"', '"2027-03-01"'),
    ("time", '"12:30"', '"12:30:00"'),
    ("interval", '"90 minutes"', '"01:30:00"'),
    ("bytea", '"\\\\x00ff"', '"\\\\x00ff"'),
    ("inet", '"10.0.0.1"', '"10.0.0.1"'),
    ("json", '{"b":  1.0, "a": [null]}', '{"b":  1.0, "a": [null]}'),
    ("json", '"text"', '"text"'),
    ("json", "null", "null"),
    ("jsonb", '{"b":  1.0, "a": [null]}', '{"a": [null], "b": 1.0}'),
    ("int[]", "[1, null, 3]", "[1,null,3]"),
    ("int[]", "[]", "[]"),
    ("int[]", '"{1,2}"', "[1,2]"),
    ("int[]", "[[1, 2], [3, 4]]", "[[1,2],[3,4]]"),
    ("text[]", '["a,b", "c\\"d", null]', '["a,b","c\\"d",null]'),
    ("numeric[]", "[1.10, 2]", "[1.10,2]"),
    ("public.mood", '"sad"', '"sad"'),
    ("public.mood[]", '["sad", "glad"]', '["sad","glad"]'),
    (
        "public.money_amount",
        '{"currency": "EUR", "cents": 9007199254740993}',
        '{"cents":9007199254740993,"currency":"EUR"}',
    ),
    (
        "public.money_amount[]",
        '[{"cents": 1, "currency": "EUR"}]',
        '[{"cents":1,"currency":"EUR"}]',
    ),
    ("public.positive", "5", "5"),
    ("int4range", '"[1,5)"', '"[1,5)"'),
]


@pytest.fixture
async def typed(db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with an enum, a composite type and a domain; time zone UTC."""
    await db.execute(_TYPES)
    await db.execute("set local timezone = 'UTC'")
    return db


@pytest.mark.parametrize(("sql_type", "given", "expected"), _ECHO)
async def test_a_value_goes_in_and_comes_out(
    typed: asyncpg.Connection, sql_type: str, given: str, expected: str
) -> None:
    await typed.execute(
        f"create function public.echo(p {sql_type}) returns {sql_type} language sql as 'select p'"
    )

    first = await call(typed, "echo", f'{{"p": {given}}}', key="k")
    again = await call(typed, "echo", f'{{"p": {given}}}', key="k")

    assert first.text == expected
    assert (again.text, again.replayed) == (expected, True)


_RESULTS = [
    ("void", "void", "begin end", "null"),
    ("scalar", "int", "begin return 7; end", "7"),
    ("null scalar", "int", "begin return null; end", "null"),
    (
        "set of scalars",
        "setof bigint",
        "begin return query values (9007199254740993), (null); end",
        "[9007199254740993, null]",
    ),
    ("empty set", "setof int", "begin return; end", "[]"),
    (
        "row type",
        "public.money_amount",
        "begin return row(1.5, 'EUR')::public.money_amount; end",
        '{"cents":2,"currency":"EUR"}',
    ),
    ("null row", "public.money_amount", "begin return null; end", "null"),
    (
        "set of rows",
        "setof public.money_amount",
        "begin return query values (1::bigint, 'EUR'), (2, null); end",
        '[{"cents":1,"currency":"EUR"}, \n {"cents":2,"currency":null}]',
    ),
    (
        "table",
        "table (n numeric, t text)",
        "begin return query values (1.50, 'x'); end",
        '[{"n":1.50,"t":"x"}]',
    ),
    (
        "table of one column",
        "table (n int)",
        "begin return query values (1), (2); end",
        '[{"n" : 1}, {"n" : 2}]',
    ),
    ("record", "record", "begin return row(1, 'x'); end", '{"f1":1,"f2":"x"}'),
    ("array", "int[]", "begin return array[1, null]; end", "[1,null]"),
    ("json", "json", "begin return '{\"a\":  1}'; end", '{"a":  1}'),
    ("not a number", "numeric", "begin return 'NaN'; end", '"NaN"'),
]


@pytest.mark.parametrize(
    ("returns", "body", "expected"),
    [each[1:] for each in _RESULTS],
    ids=[each[0] for each in _RESULTS],
)
async def test_a_result_is_what_the_api_would_give(
    typed: asyncpg.Connection, returns: str, body: str, expected: str
) -> None:
    await typed.execute(
        f"create function public.result() returns {returns} language plpgsql as $${body}$$"
    )

    first = await call(typed, "result", key="k")
    again = await call(typed, "result", key="k")

    assert first.text == expected
    assert (again.text, again.replayed) == (expected, True)


@pytest.mark.parametrize(
    ("parameters", "args", "expected"),
    [
        ("out a int", {}, '{"a" : 5}'),
        ("out a int, out b text", {}, '{"a":5,"b":"x"}'),
        ("p int, inout a int, out b text", {"p": 1, "a": 2}, '{"a":5,"b":"x"}'),
    ],
)
async def test_output_parameters_are_an_object(
    typed: asyncpg.Connection, parameters: str, args: dict[str, object], expected: str
) -> None:
    body = "a := 5; b := 'x';" if "b text" in parameters else "a := 5;"
    await typed.execute(
        f"create function public.outs({parameters}) language plpgsql as $$ begin {body} end $$"
    )

    assert (await call(typed, "outs", args, key="k")).text == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ('{"a": 1}', "1-d-null"),
        ('{"a": 1, "c": 2}', "1-d-2"),
        ('{"a": 1, "b": null, "c": 2}', "1-null-2"),
        ('{"c": 3, "b": "x", "a": 1}', "1-x-3"),
    ],
)
async def test_defaults_are_kept_for_what_is_left_out(
    db: asyncpg.Connection, args: str, expected: str
) -> None:
    await db.execute(
        """
        create function public.defaults(a int, b text default 'd', c int default null)
          returns text language sql
          as $$ select concat_ws('-', a, coalesce(b, 'null'), coalesce(c::text, 'null')) $$
        """
    )

    assert (await call(db, "defaults", args, key="k")).data == expected


async def test_overloads_are_chosen_by_the_names_of_the_arguments(db: asyncpg.Connection) -> None:
    for parameters in ("a int", "b text", "a int, b int", ""):
        await db.execute(
            f"create function public.over({parameters}) returns text language sql"
            f" as $$ select '({parameters})' $$"
        )

    assert (await call(db, "over", {"a": 1}, key="1")).data == "(a int)"
    assert (await call(db, "over", {"b": 1}, key="2")).data == "(b text)"
    assert (await call(db, "over", {"a": 1, "b": 1}, key="3")).data == "(a int, b int)"
    assert (await call(db, "over", {}, key="4")).data == "()"


async def test_an_ambiguous_overload_is_refused(db: asyncpg.Connection) -> None:
    await db.execute(
        """
        create function public.over(a int) returns int language sql as 'select 1';
        create function public.over(a text) returns int language sql as 'select 2';
        """
    )

    with pytest.raises(asyncpg.AmbiguousFunctionError, match="is overloaded") as info:
        await call(db, "over", {"a": 1}, key="k")

    assert "public.over(integer), public.over(text)" in str(info.value)


@pytest.mark.parametrize("sql_type", ["json", "jsonb"])
async def test_a_single_unnamed_json_parameter_takes_all(
    db: asyncpg.Connection, sql_type: str
) -> None:
    await db.execute(
        f"create function public.all_of_it({sql_type}) returns {sql_type} language sql as 'select $1'"
    )

    assert (await call(db, "all_of_it", '{"a": 1.0, "b": [2]}', key="k")).text == (
        '{"a": 1.0, "b": [2]}'
    )


@pytest.mark.parametrize(
    ("returns", "body", "expected"),
    [
        ("returns public.money_amount", "select null::public.money_amount", "null"),
        ("returns table (a int)", "select 1", '[{"a" : 1}]'),
        ("returns void", "select", "null"),
    ],
)
async def test_what_takes_all_may_return_anything(
    typed: asyncpg.Connection, returns: str, body: str, expected: str
) -> None:
    await typed.execute(
        f"create function public.all_of_it(json) {returns} language sql as '{body}'"
    )

    assert (await call(typed, "all_of_it", '{"x": 1}', key="k")).text == expected


async def test_named_arguments_win_over_a_parameter_that_takes_all(db: asyncpg.Connection) -> None:
    await db.execute(
        """
        create function public.over(json) returns text language sql as $$ select 'all' $$;
        create function public.over(a int) returns text language sql as $$ select 'a' $$;
        """
    )

    assert (await call(db, "over", {"a": 1}, key="1")).data == "a"
    assert (await call(db, "over", {"x": 1}, key="2")).data == "all"


async def test_odd_names_are_quoted(db: asyncpg.Connection) -> None:
    await db.execute(
        """
        create function public."Odd Fn"("Odd Arg" int, "select" int) returns table ("A b" int)
          language sql as $$ select "Odd Arg" + "select" $$
        """
    )

    answer = await call(db, "Odd Fn", {"Odd Arg": 1, "select": 2}, key="k")

    assert answer.data == [{"A b": 3}]


async def test_a_security_definer_and_a_sql_function_of_another_schema_type(
    db: asyncpg.Connection,
) -> None:
    await db.execute(
        """
        create type extensions.colour as enum ('red');
        create function public.paint(p_colour extensions.colour) returns extensions.colour
          language sql security definer set search_path = '' as 'select p_colour';
        """
    )

    assert (await call(db, "paint", {"p_colour": "red"}, key="k")).data == "red"
