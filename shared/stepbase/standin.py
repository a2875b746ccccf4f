"""What a test puts in place of the world around a function: nothing, unless `stepbase.testing` is at work.

`clock`, `config`, `sdk.http`, `sdk.replay` and `supabase.rpc` each ask here first. The stand-in belongs to
the context of one call, so whatever the call starts (tasks, threads) sees it and nobody else does.
"""

from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Protocol


class StandIn(Protocol):
    """Stands in for the clock, the server and the database; types of upper layers are `Any` here."""

    def now(self) -> datetime:
        """Return what time it is."""

    def inngest(self) -> Any:
        """Return the `InngestConfig` that leads to `carry`."""

    def carry(self, exchange: Any) -> Any:
        """Answer a request to the server: an `Exchange`, with an `Answer`."""

    def rpc(self, prepared: Any) -> Callable[[Any, str], Any] | None:
        """Return what carries a `PreparedCall` with its step's hashed id, or None for the real way."""

    def step(self, new: Any) -> None:
        """Look at a `NewStep` before it runs, and change its work."""


current: ContextVar[StandIn | None] = ContextVar("stepbase_standin", default=None)
