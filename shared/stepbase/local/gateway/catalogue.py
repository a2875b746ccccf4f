"""What the exposed schemas hold, as the gateway needs it: tables, SQL functions, roles' settings."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

# Settings of an SQL function that have to be in place before the statement that calls it begins.
HOISTED = ("statement_timeout", "default_transaction_isolation")

_TABLES = """
select n.nspname as schema, c.relname as name,
  coalesce(json_object_agg(a.attname, json_build_array(
    format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),
    case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end) order by a.attnum)
    filter (where a.attname is not null), '{}') as columns,
  coalesce((
    select json_agg(k.attname order by array_position(i.indkey::smallint[], k.attnum))
    from pg_index i
    join pg_attribute k on k.attrelid = i.indrelid and k.attnum = any(i.indkey::smallint[])
    where i.indrelid = c.oid and i.indisprimary), '[]') as key
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where n.nspname = any($1::text[]) and c.relkind in ('r', 'p', 'v', 'm', 'f')
group by n.nspname, c.relname, c.oid
"""

_FUNCTIONS = """
select n.nspname as schema, p.proname as name, p.provolatile = 'v' as volatile,
  p.proretset as returns_set,
  case
    when p.prorettype = 'void'::regtype then 'void'
    when t.typtype = 'c' or b.typtype = 'c' or p.prorettype = 'record'::regtype then 'composite'
    else 'scalar'
  end as returns,
  coalesce(p.proargnames, '{}') as names,
  coalesce(p.proargmodes::text[], array_fill('i'::text, array[p.pronargs])) as modes,
  array(
    select format_type(u.oid, -1)
    from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as u(oid, n)
    order by u.n
  ) as types,
  p.pronargs as inputs, p.pronargdefaults as defaults,
  coalesce(p.proconfig, '{}') as settings,
  coalesce((
    select json_object_agg(a.attname, format_type(a.atttypid, -1))
    from pg_attribute a
    where a.attrelid = coalesce(nullif(b.typrelid, 0), t.typrelid)
      and a.attnum > 0 and not a.attisdropped), '{}') as columns
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_type t on t.oid = p.prorettype
left join pg_type b on b.oid = t.typbasetype
where n.nspname = any($1::text[]) and p.prokind = 'f'
  and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
"""

# Settings given to a role count when it logs in; a role that is only switched to needs them set.
_ROLE_SETTINGS = """
select r.rolname as role, s.setting
from pg_db_role_setting d
join pg_roles r on r.oid = d.setrole
cross join unnest(d.setconfig) as s(setting)
join pg_settings g on g.name = split_part(s.setting, '=', 1) and g.context = 'user'
where d.setdatabase in (0, (select oid from pg_database where datname = current_database()))
  and (r.rolname = 'authenticator' or pg_has_role('authenticator', r.oid, 'member'))
order by d.setdatabase
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view; `definitions` are types with their modifiers, `types` without.

    `defaults` are SQL expressions, as the catalogue prints them.
    """

    schema: str
    name: str
    definitions: Mapping[str, str]
    types: Mapping[str, str]
    defaults: Mapping[str, str]
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input parameter of an SQL function; the name is empty if it has none."""

    name: str
    type: str
    required: bool
    variadic: bool


@dataclass(frozen=True, slots=True)
class Function:
    """One overload of an SQL function. `returns` is void, scalar or composite."""

    schema: str
    name: str
    parameters: tuple[Parameter, ...]
    returns: str
    returns_set: bool
    columns: Mapping[str, str]
    is_volatile: bool
    settings: Mapping[str, str]

    @property
    def takes_body(self) -> bool:
        """Whether its only parameter is an unnamed json or jsonb: the whole body goes there."""
        return (
            len(self.parameters) == 1
            and not self.parameters[0].name
            and self.parameters[0].type in ("json", "jsonb")
        )

    def accepts(self, names: frozenset[str]) -> bool:
        """Say whether a call with just these arguments is a call of this overload."""
        known = {p.name for p in self.parameters}
        return names <= known and all(p.name in names for p in self.parameters if p.required)

    def describe(self) -> str:
        """Return the overload as PostgREST writes it in errors."""
        arguments = ", ".join(f"{p.name} => {p.type}" for p in self.parameters)
        return f"{self.schema}.{self.name}({arguments})"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A snapshot of the database's catalogue."""

    tables: Mapping[tuple[str, str], Table] = field(default_factory=dict)
    functions: Mapping[tuple[str, str], Sequence[Function]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    role_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def settings(self, role: str, function: Function | None = None) -> dict[str, str]:
        """Return every setting that some role or function changes, with its value for this call.

        The names are always the same, so that nothing of one request is left for the next.
        """
        own = self.role_settings.get(role, {})
        return {**self.defaults, **own, **(function.settings if function else {})}


async def load(connection: asyncpg.Connection, schemas: Sequence[str]) -> Catalogue:
    """Read the catalogue of `schemas`."""
    tables = {}
    for row in await connection.fetch(_TABLES, list(schemas)):
        columns: dict[str, tuple[str, str, str | None]] = json.loads(row["columns"])
        tables[row["schema"], row["name"]] = Table(
            row["schema"],
            row["name"],
            {name: column[0] for name, column in columns.items()},
            {name: column[1] for name, column in columns.items()},
            {name: column[2] for name, column in columns.items() if column[2] is not None},
            tuple(json.loads(row["key"])),
        )
    functions: dict[tuple[str, str], list[Function]] = {}
    for row in await connection.fetch(_FUNCTIONS, list(schemas)):
        functions.setdefault((row["schema"], row["name"]), []).append(_function(row))
    settings: dict[str, dict[str, str]] = {}
    for row in await connection.fetch(_ROLE_SETTINGS):
        name, _, value = row["setting"].partition("=")
        settings.setdefault(row["role"], {})[name] = value
    changed = set(HOISTED).union(*settings.values())
    defaults = {
        row["name"]: row["reset_val"]
        for row in await connection.fetch(
            "select name, coalesce(reset_val, '') as reset_val from pg_settings"
            " where name = any($1::text[])",
            list(changed),
        )
    }
    defaults |= settings.get("authenticator", {})
    return Catalogue(tables, functions, defaults, settings)


def closest(name: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that `name` may be a slip of, for hints."""
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def _function(row: asyncpg.Record) -> Function:
    names: list[str] = row["names"] or [""] * len(row["types"])
    arguments = list(zip(names, row["modes"], row["types"], strict=True))
    inputs = [a for a in arguments if a[1] in "ibv"]
    first_default = row["inputs"] - row["defaults"]
    parameters = tuple(
        Parameter(name, type_name, n < first_default and mode != "v", mode == "v")
        for n, (name, mode, type_name) in enumerate(inputs)
    )
    columns = json.loads(row["columns"]) or {
        name: type_name for name, mode, type_name in arguments if mode in "obt"
    }
    settings = dict(setting.split("=", 1) for setting in row["settings"])
    return Function(
        row["schema"],
        row["name"],
        parameters,
        row["returns"],
        row["returns_set"],
        columns,
        row["volatile"],
        {name: settings[name] for name in HOISTED if name in settings},
    )
