"""Ops: what a 206 reply asks the server to do, one object each."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from stepbase.errors import ProtocolError


class Opcode(StrEnum):
    """Every opcode a server knows, spelled as on the wire."""

    STEP_RUN = "StepRun"
    STEP = "Step"  # legacy form of StepRun: `data` may already be wrapped
    STEP_ERROR = "StepError"
    STEP_FAILED = "StepFailed"
    STEP_PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    WAIT_FOR_EVENT = "WaitForEvent"
    INVOKE_FUNCTION = "InvokeFunction"
    WAIT_FOR_SIGNAL = "WaitForSignal"
    GATEWAY = "Gateway"
    AI_GATEWAY = "AIGateway"
    RUN_COMPLETE = "RunComplete"
    SYNC_RUN_COMPLETE = "SyncRunComplete"
    DISCOVERY_REQUEST = "DiscoveryRequest"
    DEFER_ADD = "DeferAdd"
    DEFER_ABORT = "DeferAbort"
    NONE = "None"


_SPELLINGS = {**{code.value: code for code in Opcode}, "AiGateway": Opcode.AI_GATEWAY}


@dataclass(frozen=True, slots=True)
class Op:
    """One op.

    Attributes:
        op: What to do.
        id: The hashed step id.
        name: Opcode's argument where it has one (Sleep: until when; WaitForEvent: event name).
        display_name: The step id as the user wrote it.
        opts: Opcode's options, or None.
        data: The step's result (StepRun, RunComplete).
        error: The error object (StepError, StepFailed), or None.
        userland_id: The step id as the user wrote it, if the SDK says.
        userland_index: Which use of that id this is; None for the first.
        timing: When the step's work began and how long it took, both in ns by the host's clock, or None.
    """

    op: Opcode
    id: str
    name: str = ""
    display_name: str = ""
    opts: Mapping[str, object] | None = None
    data: object = None
    error: Mapping[str, object] | None = None
    userland_id: str | None = None
    userland_index: int | None = None
    timing: tuple[int, int] | None = None

    def encode(self) -> dict[str, object]:
        """Return the JSON object of this op, shaped as the official Python SDK's (vector `03`)."""
        encoded: dict[str, object] = {
            "displayName": self.display_name,
            "id": self.id,
            "name": self.name,
            "op": self.op.value,
            "opts": self.opts,
            "userland": {"id": self.userland_id, "index": self.userland_index},
        }
        if self.error is not None:
            encoded["error"] = self.error
        if self.timing is not None:
            encoded["timing"] = {"a": self.timing[0], "b": self.timing[1]}
        encoded["data"] = self.data
        return encoded


def decode_op(raw: object, where: str) -> Op:
    """Read one op; unknown fields are ignored, because SDKs send private ones.

    Args:
        where: Its place in the reply, e.g. ``"[0]"``, for the message.

    Raises:
        ProtocolError: If the opcode is unknown, or a field has the wrong form.
    """
    if not isinstance(raw, dict):
        raise ProtocolError(f"op {where} must be a JSON object, got {raw!r:.60}")
    code = raw.get("op")
    opcode = _SPELLINGS.get(code) if isinstance(code, str) else None
    if opcode is None:
        raise ProtocolError(
            f"op {where} has the unknown opcode {code!r:.60}; known: {', '.join(_SPELLINGS)}",
            code="unknown_opcode",
        )
    hashed = raw.get("id")
    if not isinstance(hashed, str) or not hashed or hashed != _storable(hashed):
        if opcode is not Opcode.NONE:
            raise ProtocolError(f"op {where} ({opcode}) has no id: expected the step's hashed id")
        hashed = ""
    userland = raw.get("userland")
    userland = userland if isinstance(userland, dict) else {}
    written = userland.get("id")
    return Op(
        op=opcode,
        id=hashed,
        name=_text(raw, "name", where),
        display_name=_text(raw, "displayName", where),
        opts=_mapping(raw, "opts", where),
        data=raw.get("data"),
        error=_mapping(raw, "error", where),
        userland_id=_storable(written) if isinstance(written, str) else None,
        userland_index=userland.get("index") if isinstance(userland.get("index"), int) else None,
        timing=_timing(raw.get("timing")),
    )


def _timing(raw: object) -> tuple[int, int] | None:
    """Read when a step ran; what has another form is no reason to refuse its result."""
    if not isinstance(raw, dict):
        return None
    began, took = raw.get("a"), raw.get("b")
    if not (isinstance(began, int | float) and isinstance(took, int | float)):
        return None
    # Neither before 1970 nor after 2286, and no longer than a call may take.
    if not (0 < began < 1e19 and 0 <= took < 1e13):
        return None
    return int(began), int(took)


def _text(raw: Mapping[str, object], field: str, where: str) -> str:
    value = raw.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ProtocolError(f"op {where}: {field!r} must be a string, got {value!r:.60}")
    return _storable(value)


def _storable(text: str) -> str:
    """Drop what no database keeps: NUL characters and halves of characters."""
    text = text.replace("\x00", "")
    return text if text.isascii() else text.encode(errors="replace").decode()


def _mapping(raw: Mapping[str, object], field: str, where: str) -> dict[str, object] | None:
    value = raw.get(field)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ProtocolError(f"op {where}: {field!r} must be a JSON object, got {value!r:.60}")
    return value
