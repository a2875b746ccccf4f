"""What a handler takes, read from its signature when the function is defined.

A type checker cannot see that a decorator's `on=` and a handler's `event` belong together, so that
they fit is checked here.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from stepbase.errors import DefinitionError
from stepbase.sdk import typed
from stepbase.sdk.event import Event, event_name_of
from stepbase.sdk.failed import FunctionFailed

_ARGUMENTS = ("event", "events", "step", "ctx")


def wants_of(handler: Callable[..., Any], what: str) -> tuple[str, ...]:
    """Return the arguments a handler takes, in the order it names them.

    Raises:
        DefinitionError: If it takes others, is a generator, or its step is of the other kind.
    """
    if not callable(handler):
        raise DefinitionError(f"{what}: expected a function, got {handler!r}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise DefinitionError(f"{what}: a handler returns its result, it cannot yield")
    wants = []
    for parameter in inspect.signature(handler).parameters.values():
        known = parameter.name in _ARGUMENTS and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if known:
            wants.append(parameter.name)
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise DefinitionError(
                f"{what}: the handler takes {parameter.name!r}; arguments are given by name, "
                "and there are: event, events, step, ctx"
            )
    _check_step(handler, what)
    return tuple(wants)


def _annotation(handler: Callable[..., Any], argument: str) -> Any:
    """Return the annotation of an argument: its text if it names what the type checker alone sees."""
    annotation = getattr(handler, "__annotations__", {}).get(argument)
    if isinstance(annotation, str):
        try:
            return typed.resolve(annotation, handler)
        except NameError:
            pass
    return annotation


def _check_step(handler: Callable[..., Any], what: str) -> None:
    """A sync handler with the async `Step` would never await its steps, so refuse it here."""
    annotation = _annotation(handler, "step")
    kind = getattr(annotation, "__name__", str(annotation).rpartition(".")[2])
    is_async = inspect.iscoroutinefunction(handler)
    if kind == "Step" and not is_async:
        raise DefinitionError(
            f"{what}: the handler is a plain def, so its step is a SyncStep: "
            "annotate it `step: SyncStep`, or write `async def`"
        )
    if kind == "SyncStep" and is_async:
        raise DefinitionError(
            f"{what}: the handler is async, so its step is a Step: annotate it `step: Step`"
        )


def check_events(handler: Callable[..., Any], models: Mapping[str, Any], what: str) -> None:
    """Check that the event classes a handler names are those its triggers give.

    Args:
        models: The triggers' event classes by event name.

    Raises:
        DefinitionError: If the handler names one that never comes, or leaves one out.
    """
    given = list(models.values())
    for argument in ("event", "events"):
        annotation = _annotation(handler, argument)
        _check_brackets(annotation, argument, what)
        payloads = list(_payloads(annotation))
        classes = [each for each in payloads if event_name_of(each) is not None]
        for each in payloads:
            if _is_model(each) and not any(issubclass(model, each) for model in (*given, *classes)):
                raise DefinitionError(
                    f"{what}: its {argument} is annotated with {each.__name__}, which is no event class, so "
                    f"its data would come as a dict: make it one, `class {each.__name__}(EventData, "
                    'name="…")`, and write on=' + each.__name__
                )
        for each in classes:
            if not any(issubclass(model, each) for model in given):
                raise DefinitionError(
                    f"{what}: its {argument} is annotated with {each.__name__}, and on=… gives "
                    f"{_names(given) or 'a dict'}; write on={each.__name__}, or Event[dict[str, Any]]"
                )
        left_out = [
            model for model in given if not any(issubclass(model, each) for each in classes)
        ]
        if classes and len(classes) == len(payloads) and left_out:
            raise DefinitionError(
                f"{what}: on=… also gives {_names(left_out)}; annotate {argument} with "
                f"Event[{' | '.join(model.__name__ for model in given)}]"
            )


def invoked_models(handler: Callable[..., Any], what: str) -> Mapping[str, Any]:
    """Return what checks the data of a function that is only invoked: the class its event is annotated with.

    Raises:
        DefinitionError: If there are several: data alone do not say of which class they are.
    """
    found: dict[str, Any] = {}
    for argument in ("event", "events"):
        annotation = _annotation(handler, argument)
        _check_brackets(annotation, argument, what)
        for each in filter(_is_model, _payloads(annotation)):
            found[event_name_of(each) or each.__name__] = each
    if len(found) > 1:
        raise DefinitionError(
            f"{what}: without on=… it is only invoked, with data of one class; its event is annotated with "
            f"{_names(list(found.values()))}"
        )
    return found


def _is_model(payload: Any) -> bool:
    return isinstance(payload, type) and hasattr(payload, "model_validate")


def _check_brackets(annotation: Any, argument: str, what: str) -> None:
    """Refuse an event class where an `Event` of it is given: `event: OrderPlaced`."""
    bare = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    if event_name_of(bare) is not None:
        rest = f"Event[{bare.__name__}]"
        raise DefinitionError(
            f"{what}: its {argument} is annotated with {bare.__name__}, which is only its data: write "
            f"`{argument}: {rest if argument == 'event' else f'list[{rest}]'}`"
        )


def check_failed_event(handler: Callable[..., Any], what: str) -> None:
    """Check that an `on_failure` handler expects what it gets.

    Raises:
        DefinitionError: If it names another payload.
    """
    for payload in _payloads(_annotation(handler, "event")):
        if payload not in (Any, object) and (get_origin(payload) or payload) is not FunctionFailed:
            raise DefinitionError(
                f"{what}: its event is an Event[FunctionFailed[…]], with the payload of what had started "
                f"the run in brackets; got {payload!r}"
            )


def _payloads(annotation: Any) -> Iterator[Any]:
    """Yield what stands in the brackets of `Event[…]`, each member of a union by itself."""
    if get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _payloads(each)
    elif get_origin(annotation) is list:
        yield from _payloads(get_args(annotation)[0])
    elif get_origin(annotation) is Event:
        (payload,) = get_args(annotation)
        is_union = get_origin(payload) in (Union, UnionType)
        yield from get_args(payload) if is_union else (payload,)


def _names(models: list[Any]) -> str:
    return ", ".join(model.__name__ for model in models)
