"""Scripts: one generator for code that may have to await, and its two drivers.

A script yields callables of no arguments; it is sent what they return, or thrown what they raise. Under
`adrive` they may return an awaitable; under `drive` nothing can be awaited.
"""

import inspect
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

Script = Generator[Callable[[], Any], Any, T]


def drive(script: Script[T]) -> T:
    """Run a script in this thread."""
    forward: Callable[[], Callable[[], Any]] = partial(next, script)
    while True:
        try:
            asked = forward()
        except StopIteration as done:
            value: T = done.value
            return value
        try:
            forward = partial(script.send, asked())
        except BaseException as error:
            forward = partial(script.throw, error)


async def adrive(script: Script[T]) -> T:
    """Run a script in the running task."""
    forward: Callable[[], Callable[[], Any]] = partial(next, script)
    while True:
        try:
            asked = forward()
        except StopIteration as done:
            value: T = done.value
            return value
        try:
            result = asked()
            forward = partial(script.send, await result if inspect.isawaitable(result) else result)
        except BaseException as error:
            forward = partial(script.throw, error)


def within(managers: list[Any], script: Script[T]) -> Script[T]:
    """Run a script inside context managers, plain or async; none of them may swallow an exception."""
    if not managers:
        return (yield from script)
    manager, *others = managers
    is_async = hasattr(manager, "__aenter__")
    yield manager.__aenter__ if is_async else manager.__enter__
    leave = manager.__aexit__ if is_async else manager.__exit__
    try:
        value = yield from within(others, script)
    except BaseException as error:
        yield partial(leave, type(error), error, error.__traceback__)
        raise
    yield partial(leave, None, None, None)
    return value
