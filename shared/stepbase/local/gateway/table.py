"""Builds the one statement behind a request on a table or view. Pure.

Every statement gives one row: `body` (JSON text), `rows` in it, `total` if a count was asked for,
and what the database set as `response.headers` and `response.status`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stepbase.local.gateway import sql
from stepbase.local.gateway.catalogue import Table
from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.params import Column, Output, Query
from stepbase.local.gateway.sql import Parameters, Source, identifier, qualified

_RESPONSE = (
    "current_setting('response.headers', true) as headers,"
    " current_setting('response.status', true) as status"
)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text and its parameters."""

    sql: str
    values: Sequence[object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the client wants back: `returning` is minimal, headers-only or representation."""

    returning: str = "representation"
    count: bool = False
    single: bool = False


def page(lead: str, wanted: Wanted, total: str = "null::bigint", element: str = "page.*") -> str:
    """Return the outer select over a CTE named `page`, which `lead` ends with.

    `page.*` is the whole row even where a column is named page.
    """
    body = f"json_agg({element})"
    body = f"({body} -> 0)::text" if wanted.single else f"coalesce({body}, '[]')::text"
    if wanted.returning == "minimal":
        body = "''"
    return (
        f"with {lead} select {body} as body, count(*) as rows, {total} as total, {_RESPONSE}"
        " from page"
    )


def read(table: Table, query: Query, wanted: Wanted, most: int | None) -> Statement:
    """Return the statement for a GET or HEAD."""
    parameters = Parameters()
    source = Source("source", table.types)
    name = f"{qualified(table.schema, table.name)} as source"
    inner = (
        f"select {sql.outputs(query.outputs, source, parameters)} from {name}"
        + sql.where(query.conditions, source, parameters)
        + sql.order_by(query.orders, source, parameters)
        + sql.window(query, most, parameters)
    )
    total = "null::bigint"
    if wanted.count:
        conditions = sql.where(query.conditions, source, parameters)
        total = f"(select count(*) from {name}{conditions})"
    return Statement(page(f"page as ({inner})", wanted, total), parameters.values)


def insert(
    table: Table,
    query: Query,
    wanted: Wanted,
    body: bytes,
    *,
    resolution: str | None,
    missing_default: bool,
) -> Statement:
    """Return the statement for a POST; `resolution` makes it an upsert."""
    text, objects, is_list = parse_body(body)
    columns = query.columns or _common_keys(objects)
    _check_columns(table, columns)
    parameters = Parameters()
    target = f"insert into {qualified(table.schema, table.name)} as target "
    if not objects:
        return _nothing(wanted)
    if columns:
        payload = _payload(table, columns, text, is_list, missing_default, parameters)
        names = ", ".join(map(identifier, columns))
        target += f"({names}) select {_prefixed('payload', columns)} from {payload}"
    else:
        target += "default values"
    target += _on_conflict(table, query, columns, resolution)
    return _mutation(target, table, query, wanted, parameters)


def update(table: Table, query: Query, wanted: Wanted, body: bytes) -> Statement:
    """Return the statement for a PATCH."""
    text, objects, is_list = parse_body(body)
    if is_list:
        raise _invalid_body("a PATCH takes one object")
    columns = query.columns or tuple(objects[0])
    _check_columns(table, columns)
    if not columns:
        return _nothing(wanted)
    _check_has_filter("UPDATE", query)
    parameters = Parameters()
    payload = _payload(table, columns, text, is_list, False, parameters)
    assignments = ", ".join(f"{identifier(c)} = payload.{identifier(c)}" for c in columns)
    statement = (
        f"update {qualified(table.schema, table.name)} as target set {assignments} from {payload}"
        + sql.where(query.conditions, Source("target", table.types), parameters)
    )
    return _mutation(statement, table, query, wanted, parameters)


def delete(table: Table, query: Query, wanted: Wanted) -> Statement:
    """Return the statement for a DELETE."""
    _check_has_filter("DELETE", query)
    parameters = Parameters()
    statement = f"delete from {qualified(table.schema, table.name)} as target" + sql.where(
        query.conditions, Source("target", table.types), parameters
    )
    return _mutation(statement, table, query, wanted, parameters)


def parse_body(body: bytes) -> tuple[str, list[Mapping[str, object]], bool]:
    """Return the body's text, its objects, and whether they came in a list.

    The text goes to PostgreSQL as it is, so that numbers keep every digit.
    """
    try:
        text = body.decode()
        value = json.loads(text)
    except ValueError as error:
        raise _invalid_body(str(error)) from error
    objects = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in objects):
        raise _invalid_body("expected an object or a list of objects")
    return text, objects, isinstance(value, list)


def _mutation(
    statement: str, table: Table, query: Query, wanted: Wanted, parameters: Parameters
) -> Statement:
    if wanted.returning == "minimal" and not wanted.single:
        # `returning 1` asks for no privilege to read, and no policy that allows it.
        return Statement(page(f"page as ({statement} returning 1)", wanted), parameters.values)
    if wanted.returning == "headers-only":
        key = tuple(Output(Column(name)) for name in table.key)
        query = replace(query, outputs=key or (Output(None),))
    names = [item.column.name for item in query.outputs if item.column is not None]
    is_listed = len(names) == len(query.outputs)
    returned = _prefixed("target", dict.fromkeys(names)) if is_listed else "target.*"
    outputs = sql.outputs(query.outputs, Source("source", table.types), parameters)
    order = sql.order_by(query.orders, Source("source", table.types), parameters)
    lead = (
        f"source as ({statement} returning {returned}),"
        f" page as (select {outputs} from source{order})"
    )
    return Statement(page(lead, wanted), parameters.values)


def _nothing(wanted: Wanted) -> Statement:
    return Statement(page("page as (select 1 where false)", wanted), [])


def _payload(
    table: Table,
    columns: Sequence[str],
    text: str,
    is_list: bool,
    missing_default: bool,
    parameters: Parameters,
) -> str:
    definitions = ", ".join(f"{identifier(c)} {table.definitions[c]}" for c in columns)
    suffix = "set" if is_list else ""
    defaults = [c for c in columns if c in table.defaults]
    if not (missing_default and defaults):
        value = parameters.text(text, "json")
        return f"json_to_record{suffix}({value}) as payload({definitions})"
    value = parameters.text(text, "jsonb")
    items = f"jsonb_array_elements({value})" if is_list else f"(select {value})"
    pairs = ", ".join(f"{parameters.text(c)}, {table.defaults[c]}" for c in defaults)
    return (
        f"{items} as given(item), lateral jsonb_to_record(jsonb_build_object({pairs}) || given.item)"
        f" as payload({definitions})"
    )


def _on_conflict(table: Table, query: Query, columns: Sequence[str], resolution: str | None) -> str:
    target = query.on_conflict or table.key
    if resolution is None or not target:
        return ""
    clause = f" on conflict ({', '.join(map(identifier, target))}) do "
    if resolution == "ignore-duplicates" or not columns:
        return clause + "nothing"
    return (
        clause
        + "update set "
        + ", ".join(f"{identifier(c)} = excluded.{identifier(c)}" for c in columns)
    )


def _prefixed(alias: str, columns: "Sequence[str] | Mapping[str, object]") -> str:
    return ", ".join(f"{alias}.{identifier(c)}" for c in columns)


def _common_keys(objects: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    if any(item.keys() != objects[0].keys() for item in objects[1:]):
        raise _invalid_body("All object keys must match")
    return tuple(objects[0]) if objects else ()


def _check_columns(table: Table, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in table.types:
            raise ApiError(
                400,
                "PGRST204",
                f"Could not find the '{column}' column of '{table.name}' in the schema cache",
            )


def _check_has_filter(verb: str, query: Query) -> None:
    """Refuse to touch every row, as the safeupdate module does on Supabase."""
    if not query.conditions:
        raise ApiError(400, "21000", f"{verb} requires a WHERE clause")


def _invalid_body(message: str) -> ApiError:
    return ApiError(400, "PGRST102", message)
