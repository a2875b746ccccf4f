"""Steps that a server does itself and the lab's cannot: requests, AI calls, functions of other apps."""

from collections.abc import Mapping
from dataclasses import replace

from stepbase.errors import ProtocolError
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.op import Op, Opcode
from stepbase.protocol.reply import Ops, Reply
from stepbase.sdk.fault import step_fault
from stepbase.testing.fakes import Fakes
from stepbase.testing.state import Leased
from stepbase.testing.world import World

_REQUESTS = (Opcode.GATEWAY, Opcode.AI_GATEWAY)


def with_fakes(
    fakes: Fakes, world: World, leased: Leased, reply: Reply | ProtocolError
) -> Reply | ProtocolError:
    """Put what the fakes say in place of ops that ask for such steps."""
    if not isinstance(reply, Ops):
        return reply
    ops, no_retry = [], reply.no_retry
    is_alone = len([op for op in reply.ops if op.op is not Opcode.NONE]) == 1
    for op in reply.ops:
        answered, is_final = (op, False)
        if op.op in (*_REQUESTS, Opcode.INVOKE_FUNCTION) and op.id not in leased.known:
            answered, is_final = _answered(fakes, world, op) if is_alone else _planned(fakes, op)
        ops.append(answered)
        no_retry = no_retry or is_final
    return replace(reply, ops=tuple(ops), no_retry=no_retry)


def _planned(fakes: Fakes, op: Op) -> tuple[Op, bool]:
    """Give a step beside others a call of its own, as an engine does.

    What is done here and now, beside what waits, would bring no further call.
    """
    is_faked = op.op in _REQUESTS or fakes.of_step(op.display_name, op.id) is not None
    return (replace(op, op=Opcode.STEP_PLANNED) if is_faked else op), False


def _answered(fakes: Fakes, world: World, op: Op) -> tuple[Op, bool]:
    """Return the op that stands for what a server would have got, and whether a failure is final."""
    fake = fakes.of_step(op.display_name, op.id)
    if fake is None and op.op is Opcode.INVOKE_FUNCTION:
        return op, False
    if fake is None:
        name = op.display_name
        error = world.fail(
            f'step "{name}" asks the server to send a request and has no fake: '
            f'lab.fake_step("{name}", …)'
        )
        return _failed(op, error)
    try:
        value = fake.answer(*([dict(op.opts or {})] if callable(fake.result) else []))
    except Exception as raised:
        return _failed(op, raised)
    if op.op is Opcode.GATEWAY:
        value = _response(op, value)
    return replace(op, op=Opcode.STEP_RUN, data=value), False


def _failed(op: Op, error: Exception) -> tuple[Op, bool]:
    fault = step_fault(error)
    return replace(op, op=Opcode.STEP_ERROR, error=fault.error), fault.no_retry


def _response(op: Op, value: object) -> object:
    """Return a faked response as a server stores it; a fake may be the body alone."""
    if isinstance(value, Mapping) and "status_code" in value:
        body = value.get("body", "")
        text = body if isinstance(body, str) else dumps(body)
        return {"headers": {}, "url": (op.opts or {}).get("url"), **value, "body": text}
    text = value if isinstance(value, str) else dumps(value)
    return {"url": (op.opts or {}).get("url"), "headers": {}, "status_code": 200, "body": text}
