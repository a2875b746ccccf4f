"""What a handler may know about its call: `ctx`."""

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from stepbase.sdk.app import App
from stepbase.sdk.function import Function
from stepbase.sdk.replay import Replay
from stepbase.sdk.work import current_step


class ReplayLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that is silent while code runs that has run before; adds run_id, function, attempt, step."""

    def __init__(self, logger: logging.Logger, replay: Replay, extra: dict[str, object]) -> None:
        super().__init__(logger, extra)
        self._replay = replay

    def isEnabledFor(self, level: int) -> bool:
        """Say no during replay."""
        return not self._replay.is_replaying and self.logger.isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields of the call, and of the step, to those given."""
        step = current_step()
        of_step = {} if step is None else {"step": step}
        kwargs["extra"] = {**(self.extra or {}), **of_step, **(kwargs.get("extra") or {})}
        return msg, kwargs


@dataclass(slots=True)
class Context:
    """The call a handler runs in; take it as ``ctx``.

    Attributes:
        run_id: The run; the same in all its calls.
        attempt: From 0; counts the tries of the step, or of the code between two steps, at hand.
        max_attempts: Retries + 1, or None if the server did not say.
        app: The app.
        function: The function.
        logger: Silent while finished parts of the run are replayed.
        extra: What middleware put there in `transform_input`.
    """

    run_id: str
    attempt: int
    max_attempts: int | None
    app: App
    function: Function
    logger: ReplayLogger
    extra: dict[str, Any] = field(default_factory=dict)
