"""Durable step functions for Supabase.

::

    from stepbase import App, Event, EventData, Step, serve

Names are loaded when they are first used, so that `import stepbase` costs nothing and pydantic comes
with the first event class.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepbase.errors import (
        ApiError,
        DefinitionError,
        NonRetriableError,
        RetryAfterError,
        SendError,
        StepbaseError,
        StepError,
        Suspend,
    )
    from stepbase.hosts.asgi import asgi
    from stepbase.hosts.events import accept_events
    from stepbase.hosts.functions_framework import serve
    from stepbase.hosts.wsgi import wsgi
    from stepbase.sdk.app import App
    from stepbase.sdk.checkpointing import Checkpointing
    from stepbase.sdk.context import Context
    from stepbase.sdk.event import Event
    from stepbase.sdk.event_data import EventData
    from stepbase.sdk.failed import FunctionFailed
    from stepbase.sdk.function import Function
    from stepbase.sdk.middleware import Middleware
    from stepbase.sdk.options import (
        Batch,
        CancelOn,
        Concurrency,
        Debounce,
        EngineOptions,
        Priority,
        RateLimit,
        Singleton,
        Throttle,
        Timeouts,
    )
    from stepbase.sdk.step import Step
    from stepbase.sdk.sync_step import SyncStep
    from stepbase.sdk.trigger import Cron
    from stepbase.supabase.call import RpcCall

_HOMES = {
    "ApiError": "errors",
    "App": "sdk.app",
    "Batch": "sdk.options",
    "CancelOn": "sdk.options",
    "Checkpointing": "sdk.checkpointing",
    "Concurrency": "sdk.options",
    "Context": "sdk.context",
    "Cron": "sdk.trigger",
    "Debounce": "sdk.options",
    "DefinitionError": "errors",
    "EngineOptions": "sdk.options",
    "Event": "sdk.event",
    "EventData": "sdk.event_data",
    "Function": "sdk.function",
    "FunctionFailed": "sdk.failed",
    "Middleware": "sdk.middleware",
    "NonRetriableError": "errors",
    "Priority": "sdk.options",
    "RateLimit": "sdk.options",
    "RetryAfterError": "errors",
    "RpcCall": "supabase.call",
    "SendError": "errors",
    "Singleton": "sdk.options",
    "Step": "sdk.step",
    "StepError": "errors",
    "StepbaseError": "errors",
    "Suspend": "errors",
    "SyncStep": "sdk.sync_step",
    "Throttle": "sdk.options",
    "Timeouts": "sdk.options",
    "accept_events": "hosts.events",
    "asgi": "hosts.asgi",
    "serve": "hosts.functions_framework",
    "wsgi": "hosts.wsgi",
}

__all__ = [
    "ApiError",
    "App",
    "Batch",
    "CancelOn",
    "Checkpointing",
    "Concurrency",
    "Context",
    "Cron",
    "Debounce",
    "DefinitionError",
    "EngineOptions",
    "Event",
    "EventData",
    "Function",
    "FunctionFailed",
    "Middleware",
    "NonRetriableError",
    "Priority",
    "RateLimit",
    "RetryAfterError",
    "RpcCall",
    "SendError",
    "Singleton",
    "Step",
    "StepError",
    "StepbaseError",
    "Suspend",
    "SyncStep",
    "Throttle",
    "Timeouts",
    "accept_events",
    "asgi",
    "serve",
    "wsgi",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stepbase' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"stepbase.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
