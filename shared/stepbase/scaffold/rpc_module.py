"""Writes the module of typed calls: one Python function per SQL function, models for what they return.

Pure: the same catalogue and settings give the same text, laid out as ruff does and in an order that
does not depend on when things were created.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations

from stepbase.scaffold.layout import INDENT, Bracket, docstring, lay_out
from stepbase.scaffold.rpc_catalogue import Catalogue, Parameter, SqlFunction
from stepbase.scaffold.rpc_settings import RpcSettings
from stepbase.scaffold.rpc_types import Field, GenerateError, Model, Types, python_name

_HEAD = """Typed calls of the database's SQL functions, for `step.rpc`.

Made by `stepbase gen rpc`: change the SQL function, or its `comment on function`, and run that again."""


@dataclass(frozen=True, slots=True)
class Made:
    """The module's text, and the functions it has no calls for with the reason."""

    text: str
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Call:
    """A typed call before it is written."""

    function: SqlFunction
    name: str
    returns: str
    arguments: tuple[tuple[Parameter, str], ...]

    @property
    def target(self) -> str:
        """What `stepbase_call` is given: the function's name, with its schema if that is not public."""
        own = self.function
        return own.name if own.schema == "public" else f"{own.schema}.{own.name}"


def make_module(catalogue: Catalogue, settings: RpcSettings, sources: Mapping[str, bool]) -> Made:
    """Return the module.

    Args:
        sources: By top-level module: whether it is one of the project's own (for the order of imports).

    Raises:
        GenerateError: If two functions cannot be told apart by a call, or pyproject.toml names one that
            is not there.
    """
    wanted = [each for each in catalogue.functions if not _is_excluded(each, settings.exclude)]
    left_out = {each.signature: why for each in wanted if (why := _obstacle(each, catalogue))}
    functions = [each for each in wanted if each.signature not in left_out]
    _check_overloads(functions)
    types = Types(catalogue.types)
    types.expression("stepbase:RpcCall")
    calls = list(_calls(functions, types, _returns(settings.returns, functions)))
    if any(parameter.has_default for call in calls for parameter, _ in call.arguments):
        types.expression("typing:Any")
    width = settings.width
    parts = [
        docstring(_HEAD, width, 0),
        *([_imports(types.imports, sources, width)] if types.imports else []),
        *_enums(types.enums, width),
    ]
    blocks = [_model(each, width) for each in types.models.values()]
    blocks += [_function(call, types.taken(), width) for call in calls]
    head = "\n\n".join("\n".join(part) for part in parts)
    return Made("\n\n\n".join([head, *("\n".join(block) for block in blocks)]) + "\n", left_out)


def _is_excluded(function: SqlFunction, patterns: Sequence[str]) -> bool:
    names = (function.name, f"{function.schema}.{function.name}")
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _obstacle(function: SqlFunction, catalogue: Catalogue) -> str | None:
    """Say why steps cannot call a function, as `stepbase_call` would."""
    if "." in function.name:
        return "a dot in its name would end the name of a schema"
    if function.is_variadic:
        return "it is variadic"
    if any(not parameter.name for parameter in function.parameters):
        return "a parameter has no name"
    for parameter in function.parameters:
        if catalogue.types[parameter.type].kind == "pseudo":
            return f"{parameter.name} is of the pseudo-type {catalogue.types[parameter.type].shown}"
    result = catalogue.types[function.returns]
    if result.kind == "pseudo" and result.name not in ("void", "record"):
        return f"it returns the pseudo-type {result.shown}"
    if result.name == "record" and not function.columns:
        return "it returns a record without named columns; write `returns table (…)`"
    return None


def _check_overloads(functions: Sequence[SqlFunction]) -> None:
    for one, other in combinations(functions, 2):
        if (one.schema, one.name) != (other.schema, other.name):
            continue
        names = [{each.name for each in function.parameters} for function in (one, other)]
        required = {p.name for f in (one, other) for p in f.parameters if not p.has_default}
        if required <= names[0] & names[1]:
            raise GenerateError(
                f"{one.signature} and {other.signature} cannot be told apart by the names of their "
                f'arguments, so no step can call them: rename one, or exclude = ["{one.name}"]'
            )


def _returns(given: Mapping[str, str], functions: Sequence[SqlFunction]) -> Mapping[str, str]:
    known = {name for each in functions for name in (each.name, f"{each.schema}.{each.name}")}
    if unknown := sorted(given.keys() - known):
        raise GenerateError(
            f"[tool.stepbase.rpc.returns] names {', '.join(unknown)}: there is no such SQL function "
            f"that a step can call; there are {', '.join(sorted(each.name for each in functions)) or 'none'}"
        )
    return given


def _calls(
    functions: Sequence[SqlFunction], types: Types, returns: Mapping[str, str]
) -> Iterator[_Call]:
    """Yield the calls; all annotations are found first, as names must not hide what they need."""
    found = []
    for each in functions:
        given = returns.get(f"{each.schema}.{each.name}", returns.get(each.name))
        row = types.expression(given) if given else types.row(each)
        annotations = [types.argument(parameter.type) for parameter in each.parameters]
        found.append((each, f"list[{row}]" if each.returns_set else row, annotations))
    taken = set(types.taken())
    overloaded = Counter((each.schema, each.name) for each in functions)
    for each, row, annotations in found:
        name = each.name
        if overloaded[each.schema, each.name] > 1:
            name = "__".join([name, *(p.name for p in each.parameters if not p.has_default)])
        if name in taken and each.schema != "public":
            name = f"{each.schema}_{name}"
        name = python_name(name, lambda wanted: wanted in taken)
        taken.add(name)
        yield _Call(each, name, row, tuple(zip(each.parameters, annotations, strict=True)))


def _function(call: _Call, taken: frozenset[str], width: int) -> list[str]:
    names = _argument_names(call, taken)
    signature = [
        f"{names[parameter.name]}: {annotation} | None = None"
        if parameter.has_default
        else f"{names[parameter.name]}: {annotation}"
        for parameter, annotation in call.arguments
    ]
    lines = _signature(call, ["*", *signature] if signature else [], width)
    lines += docstring(call.function.comment or f"Call the SQL function `{call.target}`.", width, 1)
    required = [p.name for p, _ in call.arguments if not p.has_default]
    optional = [p.name for p, _ in call.arguments if p.has_default]
    items = [f"{_quoted(name)}: {names[name]}" for name in required]
    args: Bracket | str = Bracket("{", items, "}", is_display=True)
    if optional:
        local = python_name("args", lambda each: each in names.values())
        head = f"{local}: dict[str, Any] = {{"
        lines += lay_out(Bracket(head, items, "}", is_display=True), width, 1)
        for name in optional:
            lines += [
                f"{INDENT}if {names[name]} is not None:",
                *_assignment(f"{local}[{_quoted(name)}] = ", names[name], width),
            ]
        args = local
    made = Bracket("return RpcCall(", [_quoted(call.target), args, call.returns], ")")
    return [*lines, *lay_out(made, width, 1)]


def _assignment(target: str, value: str, width: int) -> list[str]:
    line = f"{INDENT * 2}{target}{value}"
    if len(line) <= width:
        return [line]
    return [f"{INDENT * 2}{target}(", f"{INDENT * 3}{value}", f"{INDENT * 2})"]


def _argument_names(call: _Call, taken: frozenset[str]) -> dict[str, str]:
    """Return the Python names of the parameters; none hides what the function's body needs."""
    names: dict[str, str] = {}
    for parameter, _ in call.arguments:
        used = taken.union(names.values())
        names[parameter.name] = python_name(parameter.name, used.__contains__)
    return names


def _signature(call: _Call, items: list[str], width: int) -> list[str]:
    end = f"RpcCall[{call.returns}]:"
    lines = lay_out(Bracket(f"def {call.name}(", items, f") -> {end}"), width)
    if items or len(lines[0]) <= width:
        return lines
    head = f"def {call.name}() -> RpcCall["
    if len(head) <= width:
        return lay_out(Bracket(head, [call.returns], "]:", has_comma=False), width)
    return lay_out(Bracket(f"def {call.name}() -> (", [end[:-1]], "):", has_comma=False), width)


def _model(model: Model, width: int) -> list[str]:
    lines = [f"class {model.name}(BaseModel):", *docstring(model.doc, width, 1)]
    if model.fields:
        lines.append("")
    for each in model.fields:
        lines += _field(each, width)
    return lines


def _field(each: Field, width: int) -> list[str]:
    annotation = each.annotation
    if not each.is_required and annotation != "Any":
        annotation = f"{annotation} | None"
    options = [] if each.is_required else ["default=None"]
    if each.name != each.column:
        options.append(f"alias={_quoted(each.column)}")
        return lay_out(Bracket(f"{each.name}: {annotation} = Field(", options, ")"), width, 1)
    return [f"{INDENT}{each.name}: {annotation}{' = None' if options else ''}"]


def _enums(enums: Mapping[str, tuple[str, ...]], width: int) -> list[list[str]]:
    lines: list[str] = []
    for name, labels in sorted(enums.items()):
        lines += lay_out(
            Bracket(f"{name} = Literal[", [_quoted(each) for each in labels], "]", is_display=True),
            width,
        )
    return [lines] if lines else []


def _imports(imports: Mapping[str, set[str]], own: Mapping[str, bool], width: int) -> list[str]:
    sections: list[list[str]] = [[], [], []]
    for module, names in sorted(imports.items()):
        root = module.partition(".")[0]
        place = 0 if root in sys.stdlib_module_names else 2 if own.get(root) else 1
        ordered = sorted(names, key=lambda name: (_import_order(name), name))
        line = f"from {module} import {', '.join(ordered)}"
        if len(line) > width:
            wrapped = Bracket(f"from {module} import (", ordered, ")", is_display=True)
            sections[place] += lay_out(wrapped, 0)
        else:
            sections[place].append(line)
    return "\n\n".join("\n".join(section) for section in sections if section).splitlines()


def _import_order(name: str) -> int:
    """Constants, then classes, then the rest, as ruff orders what is imported."""
    if len(name) > 1 and name.isupper():
        return 0
    return 1 if name[0].isupper() else 2


def _quoted(text: str) -> str:
    """Return a string literal, in the quotes that need fewer backslashes; double ones if it is equal."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\n", "\\n")
    return f"{quote}{escaped}{quote}"
