"""`POST /v1/checkpoint/{run}/async`: finished steps of a call that goes on; `POST /v1/signals`."""

import json

from starlette.requests import Request
from starlette.responses import Response

from stepbase.engine import opening
from stepbase.engine.api.answers import MAX_BODY, body_of, error, too_large, wrapped
from stepbase.engine.batcher import Batcher
from stepbase.engine.effects import StepRow
from stepbase.engine.store import Checkpoint, Store
from stepbase.errors import ProtocolError
from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.memo import error_memo
from stepbase.protocol.op import Op, Opcode, decode_op

_FINISHED = (Opcode.STEP_RUN, Opcode.STEP, Opcode.STEP_FAILED)


async def post_checkpoint(request: Request) -> Response:
    """Store steps of a call in flight.

    Answers 200 with an empty body; 400 for a malformed body; 409 if the call's lease is gone, so the
    function must stop; 413 if a step's result or the body is too large.
    """
    checkpoints: Batcher[Checkpoint, bool] = request.app.state.checkpoints
    body = await body_of(request, names.MAX_REPLY_BYTES)
    if body is None:
        return too_large(names.MAX_REPLY_BYTES)
    try:
        wanted = _decode(request.path_params["run_id"], json.loads(body))
    except (ValueError, RecursionError) as problem:
        return error(400, f"the body is not JSON: {problem}")
    except ProtocolError as problem:
        return error(problem.status, str(problem))
    if not await checkpoints.add(wanted, len(body)):
        return error(
            409, f"run {wanted.run_id}: this call is stale; the run has ended or goes on elsewhere"
        )
    return Response(status_code=200)


def _decode(run_id: str, raw: object) -> Checkpoint:
    if not isinstance(raw, dict) or not isinstance(raw.get("steps"), list):
        raise ProtocolError("a checkpoint is a JSON object with 'steps', a list of ops")
    ops, steps = [], []
    for i, each in enumerate(raw["steps"]):
        op = decode_op(each, f"steps[{i}]")
        if op.op not in _FINISHED:
            raise ProtocolError(f"steps[{i}]: only finished steps can be checkpointed, got {op.op}")
        ops.append(op)
        steps.append(_row(op))
    gen, job = raw.get("generation_id"), raw.get("qi_id")
    return Checkpoint(
        run_id=run_id,
        job=job if isinstance(job, str) and job else "main",
        gen=gen if isinstance(gen, int) and not isinstance(gen, bool) else 0,
        steps=opening.timed(steps, ops),
    )


def _row(op: Op) -> StepRow:
    is_failed = op.op is Opcode.STEP_FAILED
    memo = dumps(error_memo(op.error or {}) if is_failed else {"data": op.data})
    if opening.size_of(memo) > names.MAX_STEP_OUTPUT_BYTES:
        raise ProtocolError(
            f"step {opening.title(op)!r} is larger than {names.MAX_STEP_OUTPUT_BYTES} bytes: "
            "store the result and return a reference",
            status=413,
        )
    return StepRow(op.id, opening.title(op), op.op.value, "failed" if is_failed else "done", memo)


async def post_signal(request: Request) -> Response:
    """Give `{"signal", "data"}` to the run that waits for it; 404 if nobody does."""
    store: Store = request.app.state.store
    body = await body_of(request, MAX_BODY)
    if body is None:
        return too_large(MAX_BODY)
    try:
        raw = json.loads(body)
        name, data = raw["signal"], raw.get("data")
    except (ValueError, TypeError, KeyError, AttributeError):
        return error(400, 'expected {"signal": "<name>", "data": …}')
    if not isinstance(name, str) or not name:
        return error(400, "'signal' must be a non-empty string")
    run_id = await store.signal(name, dumps(data))
    if run_id is None:
        return error(404, "No signal found")
    return wrapped(dumps({"run_id": run_id}))
