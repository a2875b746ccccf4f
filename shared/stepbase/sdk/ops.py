"""Ops as text: what replies and checkpoints carry."""

from typing import Final

from stepbase.protocol.ids import hash_step_id
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.op import Op, Opcode
from stepbase.sdk.replay import Place, StepOp

_COMPLETE: Final = Place("complete", 0, hash_step_id("complete", 0))


def op_text(op: StepOp) -> str:
    """Write one op; its result is JSON text already and goes in as it is."""
    shape = Op(
        op=op.op,
        id=op.place.hashed,
        name=op.name,
        display_name=op.place.step_id,
        opts=op.opts,
        error=op.error,
        userland_id=op.place.step_id,
        userland_index=op.place.index or None,
        timing=op.timing,
    ).encode()
    del shape["data"]
    return f'{dumps(shape)[:-1]},"data":{op.data}}}'


def ops_text(ops: "list[StepOp] | tuple[StepOp, ...]") -> str:
    """Write a list of ops."""
    return "[" + ",".join(map(op_text, ops)) + "]"


def run_complete(output: str) -> StepOp:
    """Return the op that ends a run whose steps were checkpointed; `output` is JSON text."""
    return StepOp(_COMPLETE, Opcode.RUN_COMPLETE, "", data=output)
