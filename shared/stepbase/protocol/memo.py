"""Memos: how a step's stored outcome looks under `steps[<hashed id>]` of a call.

A result is `{"data": …}`, a failure `{"error": {…}}`, an edited input `{"input": […]}`; a sleep is
null and an awaited event lies there bare. So a dict counts as wrapped only if it has exactly one of
these keys and nothing else (vectors `05`, `06`, `13`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

_ERROR_FIELDS = ("name", "message", "stack", "cause", "data")


class MemoKind(Enum):
    """What a memo holds."""

    DATA = auto()
    ERROR = auto()
    INPUT = auto()


@dataclass(frozen=True, slots=True)
class Memo:
    """A decoded memo: a kind and its value (error: the error object; input: the list)."""

    kind: MemoKind
    value: object


def decode_memo(raw: object) -> Memo:
    """Read the memo of one step; anything that is not wrapped is data as it stands."""
    if isinstance(raw, dict) and len(raw) == 1:
        if "data" in raw:
            return Memo(MemoKind.DATA, raw["data"])
        if isinstance(raw.get("error"), dict):
            return Memo(MemoKind.ERROR, raw["error"])
        if isinstance(raw.get("input"), list):
            return Memo(MemoKind.INPUT, raw["input"])
    return Memo(MemoKind.DATA, raw)


def error_memo(error: Mapping[str, object]) -> dict[str, object]:
    """Return the memo of a failed step: the fields a server keeps, wrapped (vector `13`)."""
    return {
        "error": {field: error[field] for field in _ERROR_FIELDS if error.get(field) is not None}
    }
