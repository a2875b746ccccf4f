"""Reads PostgREST's query string: filters, select list and order. Pure.

Grammar, as clients write it:

    column=op.value            column=not.op.value
    or=(a.eq.1,not.and(b.gt.2,c.is.null))
    select=a,alias:b,c::text,data->a->>b
    order=a.desc.nullslast,data->>b

Names and values are only taken apart here; quoting them is the business of `sql`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stepbase.local.gateway.errors import ApiError

OPERATORS = frozenset(
    "eq neq gt gte lt lte like ilike match imatch in is isdistinct cs cd ov sl sr nxr nxl adj"
    " fts plfts phfts wfts".split()
)
_QUANTIFIED = frozenset("eq gt gte lt lte like ilike match imatch".split())
_RESERVED = frozenset({"select", "order", "limit", "offset", "columns", "on_conflict", "apikey"})
_LOGIC = frozenset({"and", "or", "not.and", "not.or"})
_OPERATION = re.compile(r"(?P<op>[a-z]+)(?:\((?P<argument>[\w]+)\))?\.(?P<value>.*)", re.DOTALL)
_QUOTE = r'"(?:[^"\\]|\\.)*"'
_QUOTED = re.compile(_QUOTE, re.DOTALL)
_PATH_PART = re.compile(rf"((?:{_QUOTE}|(?!->).)*)(->>|->|\Z)", re.DOTALL)
_OUTPUT = re.compile(
    rf'(?:(?P<alias>{_QUOTE}|[^":]+):(?!:))?(?P<column>(?:{_QUOTE}|[^":])+)(?:::(?P<cast>.+))?',
    re.DOTALL,
)
_DIRECTION = re.compile(r"(.+)\.(asc|desc|nullsfirst|nullslast)", re.DOTALL)
_CAST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?: [A-Za-z_][A-Za-z0-9_]*)*(?:\[\])?")


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a path into a JSON column; of the path's keys only the last may be `->>`."""

    name: str
    path: tuple[str | int, ...] = ()
    as_text: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """`column op value`; `argument` is a quantifier (any, all) or a text search configuration."""

    column: Column
    op: str
    value: str
    negated: bool = False
    argument: str | None = None


@dataclass(frozen=True, slots=True)
class Logic:
    """Several conditions joined by `and` or `or`."""

    op: str
    conditions: "tuple[Condition, ...]"
    negated: bool = False


Condition = Filter | Logic


@dataclass(frozen=True, slots=True)
class Output:
    """One item of a select list; a column None means `*`."""

    column: Column | None
    alias: str | None = None
    cast: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One item of an order list."""

    column: Column
    descending: bool = False
    nulls: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Everything a query string asks for; `arguments` are an RPC's, by GET only."""

    outputs: tuple[Output, ...] = (Output(None),)
    conditions: tuple[Condition, ...] = ()
    orders: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()


def parse_query(pairs: Iterable[tuple[str, str]], *, with_arguments: bool = False) -> Query:
    """Read the decoded pairs of a query string.

    Args:
        pairs: Names and values in order.
        with_arguments: True for a GET RPC: what is no filter is an argument.

    Raises:
        ApiError: PGRST100, naming what could not be read.
    """
    single: dict[str, str] = {}
    conditions: list[Condition] = []
    arguments: list[tuple[str, str]] = []
    for name, value in pairs:
        if name in _RESERVED:
            single[name] = value
        elif name in _LOGIC:
            conditions.append(_parse_logic(name, value))
        elif with_arguments and not _is_operation(value):
            arguments.append((name, value))
        else:
            conditions.append(_parse_operation(parse_column(name), value))
    return Query(
        outputs=parse_select(single.get("select", "*")),
        conditions=tuple(conditions),
        orders=parse_order(single.get("order", "")),
        limit=_parse_count("limit", single["limit"]) if "limit" in single else None,
        offset=_parse_count("offset", single.get("offset", "0")),
        columns=tuple(_split(single["columns"])) if single.get("columns") else None,
        on_conflict=tuple(_split(single.get("on_conflict", ""))),
        arguments=tuple(arguments),
    )


def parse_column(text: str) -> Column:
    """Read `name`, `name->key`, `name->0->>key`; name and keys may be double-quoted."""
    parts = [match.groups() for match in _PATH_PART.finditer(text.strip())]
    first, keys = parts[0][0], [part for part, _ in parts[1:] if part]
    arrows = [arrow for _, arrow in parts if arrow]
    name = _unquote(first)
    if not first.startswith('"') and "." in name:
        raise _not_offered(f"filtering or ordering by the related table in {text!r}")
    if not name or (not first.startswith('"') and re.search(r"[()]", name)):
        raise _unreadable("column", text)
    if "->>" in arrows[:-1] or len(keys) != len(arrows):
        raise _unreadable("JSON path", text)
    path = tuple(int(key) if re.fullmatch(r"-?\d+", key) else _unquote(key) for key in keys)
    return Column(name, path, as_text=arrows[-1:] == ["->>"])


def parse_select(text: str) -> tuple[Output, ...]:
    """Read a select list; an empty one means every column."""
    items = _split(text, unquote=False)
    return tuple(_parse_output(item) for item in items) or (Output(None),)


def parse_order(text: str) -> tuple[Order, ...]:
    """Read an order list."""
    return tuple(_parse_order_item(item) for item in _split(text, unquote=False))


def parse_list(value: str) -> list[str]:
    """Read the operand of `in`: `(a,"b,c")`."""
    if not (value.startswith("(") and value.endswith(")")):
        raise _unreadable("list, which is written (a,b)", value)
    return _split(value[1:-1], nested=False) if value != "()" else []


def _parse_output(item: str) -> Output:
    if item == "*":
        return Output(None)
    if "(" in _QUOTED.sub("", item):
        raise _not_offered(f"{item!r} in the select list (embedding and aggregates)")
    match = _OUTPUT.fullmatch(item)
    if match is None:
        raise _unreadable("select list", item)
    cast = match["cast"]
    if cast and not _CAST.fullmatch(cast):
        raise _unreadable("cast", cast)
    alias = match["alias"]
    return Output(parse_column(match["column"]), _unquote(alias) if alias else None, cast)


def _parse_order_item(item: str) -> Order:
    words: list[str] = []
    while (match := _DIRECTION.fullmatch(item)) is not None:
        item, word = match[1], match[2]
        words.insert(0, word)
    direction = [w for w in words if w in ("asc", "desc")]
    nulls = [w.removeprefix("nulls") for w in words if w.startswith("nulls")]
    if (
        len(direction) > 1
        or len(nulls) > 1
        or (nulls and words[-1] not in ("nullsfirst", "nullslast"))
    ):
        raise _unreadable("order", item)
    return Order(parse_column(item), direction == ["desc"], nulls[0] if nulls else None)


def _is_operation(value: str) -> bool:
    match = _OPERATION.fullmatch(value.removeprefix("not."))
    return match is not None and match["op"] in OPERATORS


def _parse_operation(column: Column, text: str) -> Filter:
    negated = text.startswith("not.")
    match = _OPERATION.fullmatch(text[4:] if negated else text)
    if match is None or match["op"] not in OPERATORS:
        raise _unreadable(f"filter on {column.name!r}, which is written operator.value", text)
    argument = match["argument"]
    is_search = match["op"].endswith("fts")
    if (
        argument
        and not is_search
        and (argument not in ("any", "all") or match["op"] not in _QUANTIFIED)
    ):
        raise _unreadable("modifier", f"{match['op']}({argument})")
    return Filter(column, match["op"], match["value"], negated, argument)


def _parse_logic(name: str, text: str) -> Logic:
    negated = name.startswith("not.")
    if not (text.startswith("(") and text.endswith(")")):
        raise _unreadable("logic tree, which is written (a.eq.1,b.gt.2)", text)
    items = _split(text[1:-1], unquote=False)
    if not items:
        raise _unreadable("logic tree", text)
    return Logic(name.removeprefix("not."), tuple(map(_parse_logic_item, items)), negated)


def _parse_logic_item(item: str) -> Condition:
    nested = re.fullmatch(r"((?:not\.)?(?:and|or))(\(.*\))", item, re.DOTALL)
    if nested:
        return _parse_logic(nested[1], nested[2])
    # The column ends at the first dot outside quotes; a JSON path may hold quoted keys.
    match = re.match(rf'((?:{_QUOTE}|[^".])+)\.', item)
    if match is None:
        raise _unreadable("logic tree", item)
    found = _parse_operation(parse_column(match[1]), item[match.end() :])
    value = found.value
    if value.startswith('"') and found.op != "in":
        value = _unquote(value)
    return Filter(found.column, found.op, value, found.negated, found.argument)


def _parse_count(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise _unreadable(f"{name}, which is a whole number", text)
    return int(text)


def _split(text: str, *, unquote: bool = True, nested: bool = True) -> list[str]:
    """Split at commas outside quotes and, if `nested`, outside brackets.

    A quote counts where a name or value begins; inside one elsewhere it is an ordinary character.
    """
    items: list[str] = []
    begin = depth = position = 0
    while position < len(text):
        char = text[position]
        if char == '"' and (position == begin or text[position - 1] in ".,({>: "):
            closing = _QUOTED.match(text, position)
            position = closing.end() if closing else len(text)
            continue
        if nested:
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(char, 0)
        if char == "," and depth <= 0:
            items.append(text[begin:position])
            begin = position + 1
        position += 1
    items.append(text[begin:])
    if nested:
        items = [item.strip() for item in items if item.strip()]
    return [_unquote(item) for item in items] if unquote else items


def _unquote(text: str) -> str:
    """Return `text` without its double quotes; a backslash inside keeps the next character."""
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')):
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _unreadable(what: str, text: str) -> ApiError:
    return ApiError(400, "PGRST100", f'"failed to parse {what}" ({text})', f"unexpected {text!r}")


def _not_offered(what: str) -> ApiError:
    return ApiError(
        400,
        "PGRST200",
        f"The local gateway does not offer {what}",
        "Related tables are not in its schema cache, and aggregates are off as on Supabase.",
        "Use an RPC or a view, or point SUPABASE_URL at a full Supabase.",
    )
