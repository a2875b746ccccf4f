"""What hooks of `stepbase.Middleware` are given, by one import; nothing is loaded before it is used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepbase.sdk.message import Request, Response
    from stepbase.sdk.middleware import Input, Middleware, Output, Sent, StepInfo

_HOMES = {
    "Input": "stepbase.sdk.middleware",
    "Middleware": "stepbase.sdk.middleware",
    "Output": "stepbase.sdk.middleware",
    "Request": "stepbase.sdk.message",
    "Response": "stepbase.sdk.message",
    "Sent": "stepbase.sdk.middleware",
    "StepInfo": "stepbase.sdk.middleware",
}

__all__ = [
    "Input",
    "Middleware",
    "Output",
    "Request",
    "Response",
    "Sent",
    "StepInfo",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stepbase.middleware' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
