"""SQL types as Python's: what arguments are annotated with, and what results are read into. Pure.

Arguments travel as `step.rpc` sends them, results as `to_json` writes them: that decides what stands
for what. What JSON has no form for (ranges, inet, bytea, interval) comes back as PostgreSQL's text.
"""

import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from stepbase.errors import StepbaseError
from stepbase.scaffold.rpc_catalogue import Column, SqlFunction, SqlType

_BUILT_IN: Mapping[str, str] = {
    "bool": "bool",
    "int2": "int",
    "int4": "int",
    "int8": "int",
    "oid": "int",
    "float4": "float",
    "float8": "float",
    "numeric": "decimal:Decimal",
    "uuid": "uuid:UUID",
    "date": "datetime:date",
    "time": "datetime:time",
    "timetz": "datetime:time",
    "timestamp": "datetime:datetime",
    "timestamptz": "datetime:datetime",
    "json": "typing:Any",
    "jsonb": "typing:Any",
    "void": "None",
}
_ARGUMENTS_ONLY = {"interval": "datetime:timedelta"}
NAMED = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")
_ALWAYS_TAKEN = frozenset(
    {
        "Any",
        "BaseModel",
        "Field",
        "Literal",
        "RpcCall",
        "bool",
        "dict",
        "float",
        "int",
        "list",
        "str",
    }
)


class GenerateError(StepbaseError):
    """What the database or pyproject.toml says cannot be made into a module; the message says why."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a model: what JSON calls it, what Python does, and its annotation."""

    column: str
    name: str
    annotation: str
    is_required: bool


@dataclass(frozen=True, slots=True)
class Model:
    """A pydantic model to write."""

    name: str
    doc: str
    fields: tuple[Field, ...]


@dataclass
class Types:
    """Finds annotations, and remembers what they need: imports, models and enums.

    Attributes:
        types: The catalogue's, by oid.
        imports: Names to import, by module.
        models: In the order in which they can be defined.
        enums: Their labels by name.
    """

    types: Mapping[int, SqlType]
    imports: dict[str, set[str]] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    enums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    def argument(self, oid: int) -> str:
        """Return the annotation of an argument."""
        return self._annotation(self.types[oid], is_argument=True)

    def value(self, oid: int) -> str:
        """Return the type a value of a result is read into."""
        return self._annotation(self.types[oid], is_argument=False)

    def row(self, function: SqlFunction) -> str:
        """Return the type of what a function returns, or of each row of a set."""
        if not function.columns:
            return self.value(function.returns)
        name = _pascal(function.name) + ("Row" if function.returns_set else "Result")
        doc = f"{'A row of what' if function.returns_set else 'What'} `{function.name}` returns."
        return self._model(name, function.signature, doc, function.columns)

    def expression(self, text: str) -> str:
        """Return a type that pyproject.toml gives, such as `rewards.award:Posting`, and import it."""

        def use(match: re.Match[str]) -> str:
            self.imports.setdefault(match["module"], set()).add(match["name"])
            return match["name"]

        return NAMED.sub(use, text)

    def taken(self) -> frozenset[str]:
        """Return the names that a function or parameter of the module must not have."""
        imported = {name for names in self.imports.values() for name in names}
        return _ALWAYS_TAKEN | imported | self.models.keys() | self.enums.keys()

    def _annotation(self, type_: SqlType, *, is_argument: bool) -> str:
        match type_.kind:
            case "array":
                element = self.types[type_.of]
                return f"list[{self._annotation(element, is_argument=is_argument)}]"
            case "domain":
                return self._annotation(self.types[type_.of], is_argument=is_argument)
            case "enum":
                return self._enum(type_)
            case "composite":
                return self._composite(type_)
            case _:
                return self._base(type_, is_argument=is_argument)

    def _base(self, type_: SqlType, *, is_argument: bool) -> str:
        if type_.schema == "pg_catalog":
            found = _BUILT_IN.get(type_.name) or (is_argument and _ARGUMENTS_ONLY.get(type_.name))
            if found:
                return self.expression(found)
        return self.expression("typing:Any") if type_.is_json else "str"

    def _enum(self, type_: SqlType) -> str:
        name = self._own(_pascal(type_.name), type_)
        self.expression("typing:Literal")
        self.enums[name] = type_.labels
        return name

    def _composite(self, type_: SqlType) -> str:
        name = _pascal(type_.name) + ("Row" if type_.is_table else "")
        what = "A row of" if type_.is_table else "The composite type"
        return self._model(name, type_, f"{what} `{type_.shown}`.", type_.columns)

    def _model(
        self, name: str, owner: "SqlType | str", doc: str, columns: tuple[Column, ...]
    ) -> str:
        name = self._own(name, owner)
        if name not in self.models:
            fields = tuple(self._fields(columns))
            self.models[name] = Model(name, doc, fields)
            self.expression("pydantic:BaseModel")
            if any(each.name != each.column for each in fields):
                self.expression("pydantic:Field")
        return name

    def _fields(self, columns: tuple[Column, ...]) -> Iterator[Field]:
        taken: set[str] = set()
        for column in columns:
            name = python_name(column.name, lambda each: each in taken or hasattr(BaseModel, each))
            if name.startswith(("_", "model_")):
                name = f"column_{name.lstrip('_')}"
            taken.add(name)
            yield Field(column.name, name, self.value(column.type), column.is_required)

    def _own(self, name: str, owner: "SqlType | str") -> str:
        """Give a class's name to what first asks for it, and a longer one to its namesakes."""
        who = owner if isinstance(owner, str) else f"{owner.schema}.{owner.name}"
        if name in _ALWAYS_TAKEN:
            name += "Type"
        if self._owners.setdefault(name, who) == who:
            return name
        longer = _pascal(who.partition(".")[0]) + name
        if self._owners.setdefault(longer, who) != who:
            raise GenerateError(
                f"{who} and {self._owners[longer]} would both become the class {longer}: name a type of "
                "your own for one of them in [tool.stepbase.rpc.returns], or exclude it"
            )
        return longer


def python_name(name: str, is_taken: "Callable[[str], bool]") -> str:
    """Return a name that Python allows, with an underscore behind what is a keyword or taken."""
    name = re.sub(r"\W", "_", name)
    if not name or name[0].isdigit():
        name = f"_{name}"
    while keyword.iskeyword(name) or is_taken(name):
        name += "_"
    return name


def _pascal(name: str) -> str:
    words = re.findall(r"[^\W_]+", name)
    pascal = "".join(word[0].upper() + word[1:] for word in words)
    return pascal if pascal and not pascal[0].isdigit() else f"Type{pascal}"
