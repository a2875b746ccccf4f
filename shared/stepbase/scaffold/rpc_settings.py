"""What pyproject.toml says of the module of typed calls: `[tool.stepbase.rpc]`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepbase.scaffold.rpc_types import GenerateError

_KEYS = {"output", "schemas", "exclude", "returns"}
_RUFF_WIDTH = 88
_RUFF_SOURCES = (".", "src")


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """How the module of typed calls is made.

    Attributes:
        output: Where it is written.
        schemas: Whose functions it has; empty: those that are open to steps.
        exclude: Names of SQL functions it leaves out, with `*` for any rest.
        returns: By SQL function: the type of its result, or of each row of a set, as `module:Name`.
        width: Most characters of a line: ruff's `line-length`.
        sources: Folders whose modules are the project's own, for the order of imports: ruff's `src`.
    """

    output: Path
    schemas: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    returns: Mapping[str, str] = field(default_factory=dict)
    width: int = _RUFF_WIDTH
    sources: tuple[Path, ...] = ()


def read_settings(project: Path, output: Path | None = None) -> RpcSettings:
    """Return the settings of a project's pyproject.toml; `output` goes before what is said there.

    Raises:
        GenerateError: If something there is of another form, or it does not say where to write.
    """
    file = project / "pyproject.toml"
    tool: dict[str, Any] = {}
    if file.is_file():
        try:
            tool = tomllib.loads(file.read_text("utf-8")).get("tool", {})
        except tomllib.TOMLDecodeError as error:
            raise GenerateError(f"{file}: {error}") from error
    table = tool.get("stepbase", {}).get("rpc", {})
    where = f"{file}: [tool.stepbase.rpc]"
    if unknown := sorted(table.keys() - _KEYS):
        raise GenerateError(
            f"{where} has {', '.join(unknown)}; it knows {', '.join(sorted(_KEYS))}"
        )
    written = output or (
        project / _text(table["output"], f"{where} output") if "output" in table else None
    )
    if written is None:
        raise GenerateError(
            "where is it to be written? Give --output shared/…/rpc.py, which every function folder can "
            f'import; output = "…" under [tool.stepbase.rpc] in {file} says it for good'
        )
    ruff = tool.get("ruff", {})
    return RpcSettings(
        output=written,
        schemas=_texts(table.get("schemas", []), f"{where} schemas"),
        exclude=_texts(table.get("exclude", []), f"{where} exclude"),
        returns=_mapping(table.get("returns", {}), f"{where} returns"),
        width=ruff.get("line-length", _RUFF_WIDTH),
        sources=tuple(project / each for each in ruff.get("src", _RUFF_SOURCES)),
    )


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise GenerateError(f"{where}: expected text, got {value!r}")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise GenerateError(f"{where}: expected a list of texts, got {value!r}")
    return tuple(_text(each, where) for each in value)


def _mapping(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise GenerateError(f'{where}: expected function = "module:Type", got {value!r}')
    return {name: _text(each, f"{where}.{name}") for name, each in value.items()}
