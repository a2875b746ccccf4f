"""The recorded exchanges of the real server: read, made comparable, compared."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "vectors" / "inngest-server"

Found = dict[str, tuple[object, object]]
"""What differs, by path: our value and theirs."""

TIME = re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)")
_ULID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_CUT = re.compile(r"(.)\1+\.\.\.\((\d+) chars\)")
_APP = re.compile(r"http://(?:127\.0\.0\.1|localhost):19[13]01")


def load(name: str) -> Any:
    """Read a file."""
    return json.loads((FOLDER / name).read_text())


def names(pattern: str = "*.json") -> list[str]:
    """Return the names of the files that fit a pattern."""
    return sorted(path.name for path in FOLDER.glob(pattern))


def served_at(port: int, body: object) -> Any:
    """Return a recorded sync, of functions that are served on this port."""
    return json.loads(_APP.sub(f"http://127.0.0.1:{port}", json.dumps(body)))


def expanded(value: Any) -> Any:
    """Write out strings that the recording cut ("xxx...(1500000 chars)")."""
    if isinstance(value, dict):
        return {key: expanded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [expanded(each) for each in value]
    if isinstance(value, str) and (cut := _CUT.fullmatch(value)):
        return cut[1] * int(cut[2])
    return value


def normal(value: Any) -> Any:
    """Replace ids and times: they differ in every run."""
    if isinstance(value, dict):
        return {key: normal(each) for key, each in value.items()}
    if isinstance(value, list):
        return [normal(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and value > 1_500_000_000_000:
        return "<ms>"
    if isinstance(value, str) and len(value) < 10_000:
        value = TIME.sub("<time>", _UUID.sub("<uuid>", _ULID.sub("<ulid>", value)))
    return value


def differing(ours: Any, theirs: Any) -> Found:
    """Return the paths at which two documents differ, with both values."""
    mine, other = dict(_leaves(normal(ours), "$")), dict(_leaves(normal(theirs), "$"))
    absent = "absent"
    return {
        path: (mine.get(path, absent), other.get(path, absent))
        for path in sorted(mine.keys() | other.keys())
        if mine.get(path, absent) != other.get(path, absent)
    }


def _leaves(value: Any, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, value
