"""`supabase/config.toml` as a deploy reads it: the `[compute.<name>]` and `[functions.<name>]` blocks."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepbase.deploy.problem import Problem
from stepbase.deploy.staging import BUILD
from stepbase.deploy.target import label

FILE = "supabase/config.toml"
_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_SIZES = ("2gb", "4gb")
_MOST = 10


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """The blocks, as they are in the file, and why it could not be read."""

    compute: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    functions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    broken: str | None = None

    def compute_name(self, folder: str) -> str | None:
        """Return the name of the block whose source is the folder's staged one, or None."""
        source = f"{BUILD}/{folder}"
        return next(
            (
                name
                for name, block in self.compute.items()
                if str(block.get("source", "")).removeprefix("./").rstrip("/") == source
            ),
            None,
        )


def read(root: Path) -> ProjectFile:
    """Read the file; a missing one has no blocks."""
    try:
        table = tomllib.loads((root / FILE).read_text("utf-8"))
    except FileNotFoundError:
        return ProjectFile()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return ProjectFile(broken=str(error))
    return ProjectFile(_tables(table.get("compute")), _tables(table.get("functions")))


def _tables(value: Any) -> dict[str, Mapping[str, Any]]:
    tables = value if isinstance(value, dict) else {}
    return {name: each for name, each in tables.items() if isinstance(each, dict)}


def block(folder: str) -> str:
    """Return the `[compute.<name>]` block that a folder needs."""
    return (
        f"[compute.{label(folder)}]\n"
        'runtime = "dockerfile"\n'
        'size = "2gb"\n'
        'exposure = "public"\n'
        "instances = 1\n"
        f'source = "{BUILD}/{folder}"\n'
    )


def missing_blocks(file: ProjectFile, folders: Iterable[str]) -> str:
    """Return the blocks that folders lack, as text to append."""
    return "\n".join(block(name) for name in folders if file.compute_name(name) is None)


def compute_problems(file: ProjectFile, folders: Iterable[str]) -> list[Problem]:
    """Return what Supabase Compute would refuse, or accept and then not reach."""
    found = []
    for name in file.compute:
        if _DNS_LABEL.fullmatch(name) is None:
            found.append(
                Problem(
                    f"{FILE}, [compute.{name}]",
                    "a Compute's name is a DNS label: lower-case letters, digits and -, no _",
                    f"call it [compute.{label(name)}]; the folder may keep its name",
                )
            )
    for folder in folders:
        named = file.compute_name(folder)
        if named is None:
            found.append(
                Problem(
                    FILE,
                    f'no [compute.…] block has source = "{BUILD}/{folder}"',
                    "stepbase deploy --write-config adds it",
                )
            )
        else:
            found += _block_problems(named, file.compute[named])
    return found


def _block_problems(name: str, block: Mapping[str, Any]) -> Iterable[Problem]:
    where = f"{FILE}, [compute.{name}]"
    if block.get("runtime") != "dockerfile":
        yield Problem(
            where,
            f"runtime is {block.get('runtime')!r}",
            'Python runs by its Dockerfile: runtime = "dockerfile"',
        )
    if block.get("exposure", "public") != "public":
        yield Problem(
            where,
            f"exposure is {block['exposure']!r}: the server of runs could not call it",
            'exposure = "public"; calls are signed and checked',
        )
    if block.get("size", "2gb") not in _SIZES:
        yield Problem(where, f"size is {block['size']!r}", f"one of {', '.join(_SIZES)}")
    instances = block.get("instances", 1)
    if not isinstance(instances, int) or not 1 <= instances <= _MOST:
        yield Problem(where, f"instances is {instances!r}", f"a number from 1 to {_MOST}")
