"""Finds the SQL function a request means and builds the statement that calls it. Pure."""

import json
from collections.abc import Mapping, Sequence

from stepbase.local.gateway import sql
from stepbase.local.gateway.catalogue import Catalogue, Function, closest
from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.params import Query
from stepbase.local.gateway.sql import Parameters, Source, identifier, qualified
from stepbase.local.gateway.table import Statement, Wanted, page

_SCALAR = (
    "select {value}::text as body, 1::bigint as rows, null::bigint as total,"
    " current_setting('response.headers', true) as headers,"
    " current_setting('response.status', true) as status{source}"
)


def arguments_from_query(
    functions: Sequence[Function], pairs: Sequence[tuple[str, str]]
) -> tuple[str, frozenset[str]]:
    """Return the arguments of a GET as JSON text, and their names.

    Every value is a string that PostgreSQL converts; a repeated name is a list.
    """
    variadic = {p.name for f in functions for p in f.parameters if p.variadic}
    values: dict[str, str | list[str]] = {}
    for name, value in pairs:
        if name in variadic:
            previous = values.setdefault(name, [])
            assert isinstance(previous, list)
            previous.append(value)
        else:
            values[name] = value
    return json.dumps(values), frozenset(values)


def arguments_from_body(body: bytes) -> tuple[str, frozenset[str] | None]:
    """Return a POST's arguments as JSON text, and their names; None if it is no object."""
    if not body:
        return "{}", frozenset()
    try:
        text = body.decode()
        value = json.loads(text)
    except ValueError as error:
        raise ApiError(400, "PGRST102", "Empty or invalid json", str(error)) from error
    return text, frozenset(value) if isinstance(value, dict) else None


def find(
    catalogue: Catalogue, schema: str, name: str, arguments: frozenset[str] | None
) -> Function:
    """Return the overload that these arguments mean.

    Raises:
        ApiError: PGRST202 if there is none, PGRST203 if there are several.
    """
    overloads = catalogue.functions.get((schema, name), ())
    found = [f for f in overloads if arguments is not None and f.accepts(arguments)]
    if not found:
        found = [f for f in overloads if f.takes_body]
    if len(found) > 1:
        candidates = ", ".join(f.describe() for f in found)
        raise ApiError(
            300,
            "PGRST203",
            f"Could not choose the best candidate function between: {candidates}",
            None,
            "Try renaming the parameters or the function itself in the database"
            " so function overloading can be resolved",
        )
    if not found:
        raise _not_found(catalogue, schema, name, arguments or frozenset())
    return found[0]


def call(
    function: Function,
    text: str,
    arguments: frozenset[str],
    query: Query,
    wanted: Wanted,
    most: int | None,
) -> Statement:
    """Return the statement that calls `function` with the arguments in the JSON `text`."""
    parameters = Parameters()
    inputs, actual = _inputs(function, text, arguments, parameters)
    invocation = f"{qualified(function.schema, function.name)}({actual})"
    if function.returns != "composite" and not function.returns_set:
        source = f" from {inputs}" if inputs else ""
        value = invocation if function.returns == "void" else f"to_json({invocation})"
        return Statement(_SCALAR.format(value=value, source=source), parameters.values)
    given = f"{inputs}, lateral " if inputs else ""
    # The total would mean calling the function again; what came is what there is, up to the limit.
    total = "count(*)" if wanted.count else "null::bigint"
    if function.returns != "composite":
        inner = f"select result.value from {given}{invocation} as result(value)"
        inner += sql.window(query, most, parameters)
        statement = page(f"page as ({inner})", Wanted(single=wanted.single), total, "page.value")
        return Statement(statement, parameters.values)
    rows = Source("result", function.columns)
    inner = (
        f"select {sql.outputs(query.outputs, rows, parameters)}"
        f" from {given}{invocation} as result"
        + sql.where(query.conditions, rows, parameters)
        + sql.order_by(query.orders, rows, parameters)
        + sql.window(query, most, parameters)
    )
    single = wanted.single or not function.returns_set
    return Statement(page(f"page as ({inner})", Wanted(single=single), total), parameters.values)


def _inputs(
    function: Function, text: str, arguments: frozenset[str], parameters: Parameters
) -> tuple[str, str]:
    """Return the source of the arguments and the list that passes them, by name."""
    if function.takes_body:
        return "", parameters.text(text, function.parameters[0].type)
    given = [p for p in function.parameters if p.name in arguments]
    if not given:
        return "", ""
    definitions = ", ".join(f"{identifier(p.name)} {p.type}" for p in given)
    source = f"json_to_record({parameters.text(text, 'json')}) as given({definitions})"
    actual = ", ".join(
        f"{'variadic ' if p.variadic else ''}{identifier(p.name)} := given.{identifier(p.name)}"
        for p in given
    )
    return source, actual


def _not_found(catalogue: Catalogue, schema: str, name: str, arguments: frozenset[str]) -> ApiError:
    names = ", ".join(sorted(arguments))
    wanted = f"with parameter{'s' if len(arguments) > 1 else ''} {names}"
    wanted = wanted if arguments else "without parameters"
    signature = f"{schema}.{name}({names})" if arguments else f"{schema}.{name} without parameters"
    return ApiError(
        404,
        "PGRST202",
        f"Could not find the function {signature} in the schema cache",
        f"Searched for the function {schema}.{name} {wanted} or with a single unnamed json/jsonb"
        " parameter, but no matches were found in the schema cache.",
        _suggestion(catalogue.functions, schema, name),
    )


def _suggestion(
    functions: Mapping[tuple[str, str], Sequence[Function]], schema: str, name: str
) -> str | None:
    overloads = functions.get((schema, name))
    if overloads:
        return f"Perhaps you meant to call the function {overloads[0].describe()}"
    near = closest(name, [n for s, n in functions if s == schema])
    return f"Perhaps you meant to call the function {schema}.{near}" if near else None
