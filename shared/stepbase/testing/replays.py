"""Whether a handler goes the same way each time: calls whose only purpose is to see where it goes.

Such a call asks to plan: every step is reported and none is run. With the same memos as another call it
must report the same steps. With only the first memos of a run, the next one must be among what it reports.
"""

from collections.abc import Sequence

from stepbase.protocol.reply import FunctionError, NoAnswer, Ops, Output, Reply

_RULE = (
    "Outside of steps a handler may depend on its event and on results of steps only: "
    "time, chance, counters, files and queries belong inside a step"
)


class NotDeterministicError(AssertionError):
    """A handler went another way when it was called again with the same results of steps."""


def check_again(function: str, steps: Sequence[str], first: Reply, again: Reply) -> None:
    """Compare two answers to one call.

    Args:
        steps: Names of the steps that were done.

    Raises:
        NotDeterministicError: If they differ; the message names the steps.
    """
    if isinstance(first, FunctionError | NoAnswer) or _reached(first) == _reached(again):
        return
    where = f'after step "{steps[-1]}"' if steps else "before its first step"
    raise NotDeterministicError(
        f"{function} is not deterministic: {where} it {_said(first)}, and called again with the same "
        f"results of steps it {_said(again)}. {_RULE}"
    )


def check_next(
    function: str, steps: Sequence[str], wanted: tuple[str, str], seen: set[str], reply: Reply
) -> None:
    """Check that a handler still reaches a step that it reached before.

    Args:
        wanted: The step's hashed id and its name.
        seen: Hashed ids of what was reported so far; added to.

    Raises:
        NotDeterministicError: If it does not.
    """
    if isinstance(reply, Ops):
        seen.update(op.id for op in reply.ops)
    hashed, name = wanted
    if hashed in seen:
        return
    where = f'after step "{steps[-1]}"' if steps else "at its beginning"
    raise NotDeterministicError(
        f'{function} is not deterministic: the run had reached step "{name}" {where}; called again from '
        f"the top it {_said(reply)}. {_RULE}"
    )


def _reached(reply: Reply) -> object:
    return [op.id for op in reply.ops] if isinstance(reply, Ops) else _said(reply)


def _said(reply: Reply) -> str:
    if isinstance(reply, Output):
        return f"returned {reply.text:.200}"
    if isinstance(reply, Ops):
        names = [f'"{op.display_name or op.id}"' for op in reply.ops]
        return f"reached step {', '.join(names)}" if names else "reached no step"
    if isinstance(reply, FunctionError):
        return f"raised {reply.error.get('name')}: {reply.error.get('message')}"
    return f"did not answer: {reply.message}"
