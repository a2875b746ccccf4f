"""The middleware that comes with stepbase, and what hooks are given; nothing is loaded before it is used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepbase.middleware.encryption import DecryptionError, EncryptionMiddleware
    from stepbase.middleware.logs import LoggingMiddleware
    from stepbase.middleware.monitor import Monitor
    from stepbase.middleware.tracing import TracingMiddleware
    from stepbase.sdk.message import Request, Response
    from stepbase.sdk.middleware import Input, Middleware, Output, Sent, StepInfo

_HOMES = {
    "DecryptionError": "stepbase.middleware.encryption",
    "EncryptionMiddleware": "stepbase.middleware.encryption",
    "Input": "stepbase.sdk.middleware",
    "LoggingMiddleware": "stepbase.middleware.logs",
    "Middleware": "stepbase.sdk.middleware",
    "Monitor": "stepbase.middleware.monitor",
    "Output": "stepbase.sdk.middleware",
    "Request": "stepbase.sdk.message",
    "Response": "stepbase.sdk.message",
    "Sent": "stepbase.sdk.middleware",
    "StepInfo": "stepbase.sdk.middleware",
    "TracingMiddleware": "stepbase.middleware.tracing",
}

__all__ = [
    "DecryptionError",
    "EncryptionMiddleware",
    "Input",
    "LoggingMiddleware",
    "Middleware",
    "Monitor",
    "Output",
    "Request",
    "Response",
    "Sent",
    "StepInfo",
    "TracingMiddleware",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stepbase.middleware' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
