"""What a database says of the SQL functions that steps may call: parameters, results, types.

Read from the system catalogue alone, so it is the same for a local database, a Supabase project and
one that was made a second ago from migrations. Nothing here knows Python's types.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

Kind = Literal["base", "array", "domain", "enum", "composite", "range", "pseudo"]

_KINDS: Mapping[str, Kind] = {
    "b": "base",
    "c": "composite",
    "d": "domain",
    "e": "enum",
    "m": "range",
    "p": "pseudo",
    "r": "range",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result or of a composite type.

    Attributes:
        type: Its type's oid.
        is_required: Whether it is never null; only tables can say so.
    """

    name: str
    type: int
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class SqlType:
    """A type that a function takes or returns.

    Attributes:
        shown: Its name as SQL writes it, for messages.
        of: The type of an array's elements or of a domain's values; else 0.
        labels: The values of an enum.
        columns: Those of a composite type or table.
        is_table: Whether it is the row of a table or view.
        is_json: Whether it becomes JSON by a cast of its own, as hstore does, and not as text.
    """

    oid: int
    schema: str
    name: str
    shown: str
    kind: Kind
    of: int = 0
    labels: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    is_table: bool = False
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a call may give a value for."""

    name: str
    type: int
    has_default: bool = False


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """A function as its callers see it.

    Attributes:
        signature: With schema and types of the parameters, for messages.
        returns: The result's type, void included.
        columns: What it returns by name: its `out` parameters, or the columns of `returns table`.
        comment: What `comment on function` says.
    """

    schema: str
    name: str
    signature: str
    parameters: tuple[Parameter, ...]
    returns: int
    returns_set: bool = False
    columns: tuple[Column, ...] = ()
    comment: str | None = None
    is_variadic: bool = False


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The functions of some schemas, and every type they mention by oid."""

    functions: tuple[SqlFunction, ...]
    types: Mapping[int, SqlType]


# Extensions' functions are not the project's, and stepbase's own are called by steps, not named in them.
_FUNCTIONS = """
select
  n.nspname as schema, p.proname as name, p.oid::regprocedure::text as signature,
  coalesce(p.proallargtypes, p.proargtypes::oid[])::int8[] as types,
  coalesce(p.proargnames, '{}') as names, p.proargmodes::text[] as modes,
  p.pronargdefaults as defaults, p.provariadic <> 0 as is_variadic,
  p.prorettype::int8 as returns, p.proretset as returns_set,
  pg_catalog.obj_description(p.oid, 'pg_proc') as comment
from pg_catalog.pg_proc as p
join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
where n.nspname = any ($1)
  and p.prokind = 'f'
  and p.prorettype not in ('pg_catalog.trigger'::regtype, 'pg_catalog.event_trigger'::regtype)
  and not pg_catalog.starts_with(p.proname, 'stepbase_')
  and not exists (
    select from pg_catalog.pg_depend as d
    where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  )
order by n.nspname = 'public' desc, n.nspname collate "C", p.proname collate "C",
  p.oid::regprocedure::text collate "C"
"""

_TYPES = """
select
  t.oid::int8, n.nspname as schema, t.typname as name, pg_catalog.format_type(t.oid, -1) as shown,
  t.typtype::text as letter, t.typcategory = 'A' and t.typelem <> 0 as is_array,
  t.typelem::int8 as element, t.typbasetype::int8 as base, t.typrelid::int8 as relation,
  coalesce((select c.relkind <> 'c' from pg_catalog.pg_class as c where c.oid = t.typrelid), false)
    as is_table,
  array(
    select e.enumlabel::text from pg_catalog.pg_enum as e
    where e.enumtypid = t.oid order by e.enumsortorder
  ) as labels,
  exists (
    select from pg_catalog.pg_cast as c
    where c.castsource = t.oid
      and c.casttarget in ('pg_catalog.json'::regtype, 'pg_catalog.jsonb'::regtype)
      and c.castmethod = 'f'
  ) as is_json
from pg_catalog.pg_type as t
join pg_catalog.pg_namespace as n on n.oid = t.typnamespace
where t.oid = any ($1::oid[])
"""

_COLUMNS = """
select a.attrelid::int8 as relation, a.attname as name, a.atttypid::int8 as type, a.attnotnull as is_required
from pg_catalog.pg_attribute as a
where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
"""


async def read(dsn: str, schemas: Sequence[str] | None = None) -> Catalogue:
    """Return what the database has in `schemas`, or in those that are open to steps.

    Raises:
        OSError, asyncpg.PostgresError: If the database is away or refuses.
    """
    connection = await asyncpg.connect(dsn)
    try:
        # Names in messages are then qualified whatever the role's own settings are.
        await connection.execute("set search_path = ''")
        names = list(schemas) if schemas else await _open_schemas(connection)
        functions = [_function(row) for row in await connection.fetch(_FUNCTIONS, names)]
        return Catalogue(tuple(functions), await _types(connection, functions))
    finally:
        await connection.close()


async def _open_schemas(connection: asyncpg.Connection) -> list[str]:
    """Return the schemas whose functions steps may call; `public` where stepbase is not there yet."""
    if await connection.fetchval("select to_regclass('stepbase.callable_schemas') is null"):
        return ["public"]
    rows = await connection.fetch("select schema_name from stepbase.callable_schemas")
    return [row["schema_name"] for row in rows]


def _function(row: Any) -> SqlFunction:
    types, names = list(row["types"]), list(row["names"])
    modes = row["modes"] or ["i"] * len(types)
    named = list(zip(types, [*names, *[""] * (len(types) - len(names))], modes, strict=True))
    given = [(name, type_) for type_, name, mode in named if mode in "ibv"]
    first_default = len(given) - row["defaults"]
    return SqlFunction(
        schema=row["schema"],
        name=row["name"],
        signature=row["signature"],
        parameters=tuple(
            Parameter(name, type_, position >= first_default)
            for position, (name, type_) in enumerate(given)
        ),
        returns=row["returns"],
        returns_set=row["returns_set"],
        columns=tuple(Column(name, type_) for type_, name, mode in named if mode in "obt"),
        comment=row["comment"],
        is_variadic=row["is_variadic"],
    )


async def _types(
    connection: asyncpg.Connection, functions: Iterable[SqlFunction]
) -> dict[int, SqlType]:
    """Return every type the functions mention, and those that these are made of."""
    found: dict[int, SqlType] = {}
    wanted = {oid for function in functions for oid in _mentioned(function)}
    while wanted:
        rows = await connection.fetch(_TYPES, sorted(wanted))
        relations = [row["relation"] for row in rows if row["relation"]]
        columns: dict[int, list[Column]] = {}
        for each in await connection.fetch(_COLUMNS, relations):
            column = Column(each["name"], each["type"], each["is_required"])
            columns.setdefault(each["relation"], []).append(column)
        new = [_type(row, tuple(columns.get(row["relation"], ()))) for row in rows]
        found.update({each.oid: each for each in new})
        parts = {oid for each in new for oid in (each.of, *(c.type for c in each.columns))}
        wanted = parts - found.keys() - {0}
    return found


def _mentioned(function: SqlFunction) -> Iterable[int]:
    yield function.returns
    yield from (parameter.type for parameter in function.parameters)
    yield from (column.type for column in function.columns)


def _type(row: Any, columns: tuple[Column, ...]) -> SqlType:
    kind: Kind = "array" if row["is_array"] else _KINDS[row["letter"]]
    return SqlType(
        oid=row["oid"],
        schema=row["schema"],
        name=row["name"],
        shown=row["shown"],
        kind=kind,
        of={"array": row["element"], "domain": row["base"]}.get(kind, 0),
        labels=tuple(row["labels"]),
        columns=columns,
        is_table=row["is_table"],
        is_json=row["is_json"],
    )
