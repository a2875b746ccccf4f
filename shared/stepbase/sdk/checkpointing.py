"""The option that says how steps of one call are checkpointed."""

from dataclasses import dataclass, field
from datetime import timedelta

from stepbase.errors import DefinitionError
from stepbase.protocol.duration import to_timedelta


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """How a handler goes on in one call while its steps' results are saved on the way.

    ::

        @app.function("import", checkpointing=Checkpointing(buffered_steps=10, max_interval="2s"))

    The defaults are chosen in docs/decisions/0007. ``checkpointing=False`` ends the call after each step.

    Args:
        buffered_steps: How many results may be unsaved while the next step runs, 1 to 100. With more
            than one a crash repeats that many steps (never an RPC: its effect happens once anyway).
        max_interval: Save results that have waited this long, also while a step runs.
        max_runtime: After this long the call ends with the step at hand, and the server calls again.
        parallel: Also run steps that stand beside each other in this call, where the server is
            stepbase's engine. False: each has a call of its own, so that several hosts share them.

    Raises:
        DefinitionError: If a value is out of its range.
    """

    buffered_steps: int = 1
    max_interval: timedelta | str | None = None
    max_runtime: timedelta | str = "10s"
    parallel: bool = True
    interval_seconds: float | None = field(init=False, repr=False, compare=False)
    runtime_seconds: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        count = self.buffered_steps
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 100:
            raise DefinitionError(
                f"Checkpointing(buffered_steps=…): expected a whole number, 1 to 100; got {count!r}"
            )
        interval = None
        if self.max_interval is not None:
            interval = _seconds(self.max_interval, "max_interval")
        if not isinstance(self.parallel, bool):
            raise DefinitionError(
                f"Checkpointing(parallel=…): expected True or False, got {self.parallel!r}"
            )
        object.__setattr__(self, "interval_seconds", interval)
        object.__setattr__(self, "runtime_seconds", _seconds(self.max_runtime, "max_runtime"))


def _seconds(value: timedelta | str, name: str) -> float:
    try:
        seconds = to_timedelta(value).total_seconds()
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"Checkpointing({name}=…): {error}") from error
    if not 0 < seconds <= 7200:
        raise DefinitionError(
            f"Checkpointing({name}=…): expected more than nothing and at most two hours, got {value!r}"
        )
    return seconds
