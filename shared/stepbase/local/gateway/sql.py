"""Turns parsed parameters into SQL. Pure.

Two rules keep it safe: a name only ever enters as a quoted identifier, a value only as a parameter.
Types come from the catalogue; the one thing taken from the request as it is, the type of a cast,
was checked to be plain words (`params`).

Every parameter is sent as text (or text[]) and cast in SQL, so that PostgreSQL reads it exactly as
it reads a literal, with its own error for a bad one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.params import (
    Column,
    Condition,
    Filter,
    Order,
    Output,
    Query,
    parse_list,
)

_COMPARISONS: Mapping[str, str] = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "isdistinct": "is distinct from",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
    "sl": "<<",
    "sr": ">>",
    "nxr": "&<",
    "nxl": "&>",
    "adj": "-|-",
}
_PATTERNS: Mapping[str, str] = {"like": "like", "ilike": "ilike", "match": "~", "imatch": "~*"}
_IS: Mapping[str, str] = {
    "null": "is null",
    "not_null": "is not null",
    "true": "is true",
    "false": "is false",
    "unknown": "is unknown",
}
_SEARCHES: Mapping[str, str] = {
    "fts": "to_tsquery",
    "plfts": "plainto_tsquery",
    "phfts": "phraseto_tsquery",
    "wfts": "websearch_to_tsquery",
}


@dataclass
class Parameters:
    """The parameters of one statement; each method returns the SQL that stands for a new one."""

    values: list[object] = field(default_factory=list)

    def text(self, value: str, type_name: str = "text") -> str:
        """Add `value`, read as `type_name`."""
        self.values.append(value)
        cast = "" if type_name == "text" else f"::{type_name}"
        return f"${len(self.values)}::text{cast}"

    def array(self, values: list[str], type_name: str) -> str:
        """Add an array of `type_name`."""
        self.values.append(values)
        return f"${len(self.values)}::text[]::{type_name}[]"


@dataclass(frozen=True, slots=True)
class Source:
    """What names in a query refer to: the alias of a relation and its columns' types."""

    alias: str
    types: Mapping[str, str]


def identifier(name: str) -> str:
    """Return `name` as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    """Return `schema.name`, quoted."""
    return f"{identifier(schema)}.{identifier(name)}"


def outputs(items: tuple[Output, ...], source: Source, parameters: Parameters) -> str:
    """Return a select list."""
    return ", ".join(_output(item, source, parameters) for item in items)


def where(conditions: tuple[Condition, ...], source: Source, parameters: Parameters) -> str:
    """Return a where clause, or nothing if there are no conditions."""
    if not conditions:
        return ""
    return " where " + " and ".join(_condition(c, source, parameters) for c in conditions)


def order_by(orders: tuple[Order, ...], source: Source, parameters: Parameters) -> str:
    """Return an order by clause, or nothing."""
    if not orders:
        return ""
    items = []
    for order in orders:
        item = _column(order.column, source, parameters)
        item += " desc" if order.descending else ""
        item += f" nulls {order.nulls}" if order.nulls else ""
        items.append(item)
    return " order by " + ", ".join(items)


def window(query: Query, most: int | None, parameters: Parameters) -> str:
    """Return limit and offset; `most` is the server's own limit."""
    limits = [n for n in (query.limit, most) if n is not None]
    clause = f" limit {parameters.text(str(min(limits)), 'bigint')}" if limits else ""
    if query.offset:
        clause += f" offset {parameters.text(str(query.offset), 'bigint')}"
    return clause


def _output(item: Output, source: Source, parameters: Parameters) -> str:
    if item.column is None:
        return f"{source.alias}.*"
    expression = _column(item.column, source, parameters)
    name = item.alias
    if item.column.path:
        keys = [key for key in item.column.path if isinstance(key, str)]
        name = name or (keys[-1] if keys else item.column.name)
    if item.cast:
        expression = f"cast({expression} as {item.cast})"
        name = name or item.column.name
    return f"{expression} as {identifier(name)}" if name else expression


def _column(column: Column, source: Source, parameters: Parameters) -> str:
    expression = f"{source.alias}.{identifier(column.name)}"
    if not column.path:
        return expression
    expression = f"to_jsonb({expression})"
    for position, key in enumerate(column.path):
        is_last = position == len(column.path) - 1
        arrow = "->>" if is_last and column.as_text else "->"
        type_name = "integer" if isinstance(key, int) else "text"
        expression += f" {arrow} {parameters.text(str(key), type_name)}"
    return f"({expression})"


def _type(column: Column, source: Source) -> str:
    if column.path:
        return "text" if column.as_text else "jsonb"
    # An unknown column keeps its name in the statement: PostgreSQL answers 42703 and suggests one.
    return source.types.get(column.name, "text")


def _condition(condition: Condition, source: Source, parameters: Parameters) -> str:
    if isinstance(condition, Filter):
        sql = _filter(condition, source, parameters)
    else:
        parts = [_condition(c, source, parameters) for c in condition.conditions]
        sql = "(" + f" {condition.op} ".join(parts) + ")"
    return f"not ({sql})" if condition.negated else sql


def _filter(condition: Filter, source: Source, parameters: Parameters) -> str:
    column = _column(condition.column, source, parameters)
    type_name = _type(condition.column, source)
    op, value = condition.op, condition.value
    if op == "is":
        if value.lower() not in _IS:
            raise ApiError(
                400, "PGRST100", f'"failed to parse filter (is.{value})"', f"unexpected {value!r}"
            )
        return f"{column} {_IS[value.lower()]}"
    if op == "in":
        return f"{column} = any({parameters.array(parse_list(value), type_name)})"
    if op in _SEARCHES:
        return _search(condition, column, type_name, parameters)
    if op in _PATTERNS:
        type_name = "text"
        value = value.replace("*", "%") if op.endswith("like") else value
    operator = _COMPARISONS.get(op) or _PATTERNS[op]
    if condition.argument:
        return (
            f"{column} {operator} {condition.argument}({parameters.text(value, f'{type_name}[]')})"
        )
    return f"{column} {operator} {parameters.text(value, type_name)}"


def _search(condition: Filter, column: str, type_name: str, parameters: Parameters) -> str:
    config = condition.argument
    lead = f"{parameters.text(config, 'regconfig')}, " if config else ""
    if type_name != "tsvector":
        column = f"to_tsvector({lead}{column})"
    return f"{column} @@ {_SEARCHES[condition.op]}({lead}{parameters.text(condition.value)})"
