"""Functions: a handler with its id, triggers and options, checked when it is defined."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic
from urllib.parse import quote

from stepbase.errors import DefinitionError
from stepbase.protocol import names
from stepbase.sdk import typed
from stepbase.sdk.check import check_expression
from stepbase.sdk.failed import FailureReader, model_of
from stepbase.sdk.signature import (
    check_events,
    check_failed_event,
    invoked_models,
    wants_of,
)
from stepbase.sdk.trigger import Cron, EventTrigger, Trigger, to_triggers

if TYPE_CHECKING:
    # Loaded when an option is used: an app's start is a promise (bench/sdk.py).
    from typing_extensions import TypeVar

    from stepbase.sdk import options as opt
    from stepbase.sdk.checkpointing import Checkpointing
    from stepbase.sdk.middleware import Factory

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_id(value: object, what: str) -> str:
    """Return an app's or function's id if it can stand in a URL.

    Raises:
        DefinitionError: If not; the message says what is allowed.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value) or len(value) > 100:
        raise DefinitionError(
            f'{what}: an id is letters, digits, "-", "_" and ".", for example "award-currency" '
            f"(at most 100); got {value!r}"
        )
    return value


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one function; see `App.function`."""

    retries: int = 3
    concurrency: "tuple[opt.Concurrency, ...]" = ()
    throttle: "opt.Throttle | None" = None
    rate_limit: "opt.RateLimit | None" = None
    debounce: "opt.Debounce | None" = None
    priority: "opt.Priority | None" = None
    batch: "opt.Batch | None" = None
    idempotency: str | None = None
    singleton: "opt.Singleton | None" = None
    cancel_on: "tuple[opt.CancelOn, ...]" = ()
    timeouts: "opt.Timeouts | None" = None
    engine: "opt.EngineOptions | None" = None
    checkpointing: "bool | Checkpointing" = True

    def _concurrency(self) -> list[dict[str, Any]] | dict[str, Any] | None:
        steps = [limit.wire() for limit in self.concurrency if limit.of == "steps"]
        runs = [limit.wire() for limit in self.concurrency if limit.of == "runs"]
        if runs:
            return {"fn": runs, "step": steps} if steps else {"fn": runs}
        return steps or None

    def wire(self) -> dict[str, Any]:
        """Return the fields that register these options, spelled as the official SDK does."""
        fields: dict[str, Any] = {
            "concurrency": self._concurrency(),
            "throttle": self.throttle and self.throttle.wire(),
            "rateLimit": self.rate_limit and self.rate_limit.wire(),
            "debounce": self.debounce and self.debounce.wire(),
            "priority": self.priority and self.priority.wire(),
            "batchEvents": self.batch and self.batch.wire(),
            "idempotency": self.idempotency,
            "singleton": self.singleton and self.singleton.wire(),
            "cancel": [cancel.wire() for cancel in self.cancel_on] or None,
            "timeouts": self.timeouts and self.timeouts.wire(),
            "stepbase": self.engine and self.engine.wire(),
        }
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True, slots=True, eq=False)
class Function(Generic[R]):
    """A durable function of an app; made by `App.function`.

    Its type parameter is what the handler returns, so that ``step.invoke`` is typed by it.

    Attributes:
        slug: `<app>-<id>`, its name on the wire.
        handler: The Python callable.
        wants: The arguments the handler takes, of event, events, step and ctx.
        is_async: Whether the handler is `async def`.
        returns: The handler's return annotation.
        models: Event classes by event name, for checking payloads.
        on_failure: The function that runs when this one failed for good, or None.
        middleware: What its calls are made of besides the handler, outermost first.
    """

    id: str
    slug: str
    name: str
    handler: Callable[..., Any]
    triggers: tuple[Trigger, ...]
    options: Options
    wants: tuple[str, ...]
    is_async: bool
    returns: Any
    models: Mapping[str, Any] = field(default_factory=dict)
    on_failure: "Function | None" = None
    middleware: "tuple[Factory, ...]" = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler directly, without any durability."""
        return self.handler(*args, **kwargs)

    def model_for(self, event_name: str) -> Any:
        """Return the event class that checks payloads of this name, or None for untyped ones.

        A direct call of a function with a single event class is checked with that class.
        """
        return model_of(self.models, event_name)

    def wire(self, serve_url: str) -> list[dict[str, Any]]:
        """Return the objects that register this function, its failure handler included."""
        url = f"{serve_url}?fnId={quote(self.slug)}&stepId={names.STEP}"
        step = {
            "id": names.STEP,
            "name": names.STEP,
            "retries": {"attempts": self.options.retries},
            "runtime": {"type": "http", "url": url},
        }
        registered = {
            "id": self.slug,
            "name": self.name,
            "triggers": [trigger.wire() for trigger in self.triggers],
            "steps": {names.STEP: step},
            **self.options.wire(),
        }
        return [registered, *(self.on_failure.wire(serve_url) if self.on_failure else [])]


def define(
    app_id: str,
    function_id: str,
    handler: Callable[..., Any],
    on: object,
    options: Options,
    name: str | None,
    on_failure: Callable[..., Any] | None,
    middleware: "tuple[Factory, ...]" = (),
) -> Function:
    """Check everything a function declares and build it.

    Raises:
        DefinitionError: If something cannot work; the message says what is allowed.
    """
    what = f'function "{function_id}"'
    check_id(function_id, "@app.function(id)")
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise DefinitionError(f"{what}: name=… is a title for people, got {name!r}")
    triggers = to_triggers(on)
    _check_is_plain(handler, what)
    wants = wants_of(handler, what)
    models: Mapping[str, Any] = {
        trigger.name: trigger.model
        for trigger in triggers
        if isinstance(trigger, EventTrigger) and trigger.model is not None
    }
    if not triggers:
        models = invoked_models(handler, what)
    _check_options(options, triggers, what)
    for cancel in options.cancel_on:
        for model in models.values():
            cancel.check_against(model, f"{what}: CancelOn(match=…)")
    if triggers:
        check_events(handler, models, what)
    slug = f"{app_id}-{function_id}"
    failure = None
    if on_failure is not None:
        failure = _failure(slug, name or function_id, on_failure, middleware, models)
        _check_middleware(failure, f'on_failure of "{slug}"')
    function = Function(
        id=function_id,
        slug=slug,
        name=name or function_id,
        handler=handler,
        triggers=triggers,
        options=options,
        wants=wants,
        is_async=inspect.iscoroutinefunction(handler),
        returns=typed.returns_of(handler),
        models=models,
        on_failure=failure,
        middleware=middleware,
    )
    _check_middleware(function, what)
    return function


def _check_middleware(function: Function, what: str) -> None:
    if function.middleware and not function.is_async:
        from stepbase.sdk.middleware import check_plain

        check_plain(function.middleware, what)


def _check_is_plain(handler: Callable[..., Any], what: str) -> None:
    """Refuse a function of an app as the handler of another: it would be called without its arguments."""
    if isinstance(handler, Function):
        raise DefinitionError(
            f'{what}: expected a handler, got the function "{handler.slug}"; for several triggers '
            "write on=[…], for two functions of one handler define it without a decorator"
        )


def _failure(
    slug: str,
    name: str,
    handler: Callable[..., Any],
    middleware: "tuple[Factory, ...]",
    models: Mapping[str, Any],
) -> Function:
    """The extra function a server runs when another one failed for good (vector `02-register…`)."""
    expression = f"event.data.function_id == '{slug}'"
    what = f'on_failure of "{slug}"'
    _check_is_plain(handler, what)
    wants = wants_of(handler, what)
    check_failed_event(handler, what)
    return Function(
        id=f"{slug}-failure",
        slug=f"{slug}-failure",
        name=f"{name} (failure)",
        handler=handler,
        triggers=(EventTrigger(names.EVENT_FUNCTION_FAILED, expression),),
        options=Options(retries=0),
        wants=wants,
        is_async=inspect.iscoroutinefunction(handler),
        returns=typed.returns_of(handler),
        models={names.EVENT_FUNCTION_FAILED: FailureReader(models)},
        middleware=middleware,
    )


def _check_options(options: Options, triggers: Sequence[Trigger], what: str) -> None:
    retries = options.retries
    if (
        not isinstance(retries, int)
        or isinstance(retries, bool)
        or not 0 <= retries <= names.MAX_RETRIES
    ):
        raise DefinitionError(
            f"{what}: retries=… is a whole number from 0 to {names.MAX_RETRIES}, got {retries!r}"
        )
    of_runs = sum(limit.of == "runs" for limit in options.concurrency)
    if of_runs > 1:
        raise DefinitionError(f"{what}: at most 1 limit of runs, got {of_runs}")
    if len(options.concurrency) - of_runs > names.MAX_CONCURRENCY_LIMITS:
        raise DefinitionError(
            f"{what}: at most {names.MAX_CONCURRENCY_LIMITS} concurrency limits, "
            f"got {len(options.concurrency) - of_runs}"
        )
    if len(options.cancel_on) > names.MAX_CANCELS:
        raise DefinitionError(
            f"{what}: at most {names.MAX_CANCELS} cancel_on events, got {len(options.cancel_on)}"
        )
    if options.idempotency is not None:
        check_expression(options.idempotency, f"{what}: idempotency=…")
        if options.rate_limit is not None:
            raise DefinitionError(
                f"{what}: idempotency is a rate limit of 1 in 24 hours; give one of the two"
            )
    if options.batch is not None:
        _check_batch(options, what)
    if options.batch is not None and any(isinstance(trigger, Cron) for trigger in triggers):
        raise DefinitionError(f"{what}: batch collects events; it cannot go with Cron(…)")


def _check_batch(options: Options, what: str) -> None:
    others = {
        "cancel_on": options.cancel_on,
        "debounce": options.debounce,
        "singleton": options.singleton,
        "priority": options.priority,
    }
    for name, value in others.items():
        if value:
            raise DefinitionError(f"{what}: batch and {name} exclude each other on the server")
