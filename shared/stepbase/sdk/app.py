"""Apps: the functions behind one serve URL, and sending events."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from stepbase import config
from stepbase.errors import DefinitionError
from stepbase.sdk.event import Event, Sendable, to_events
from stepbase.sdk.function import Function, Options, check_id, define

if TYPE_CHECKING:
    # Loaded when an option is used: an app's start is a promise (bench/sdk.py).
    from stepbase.sdk import options as opt
    from stepbase.sdk.api import Api, ApiSync
    from stepbase.sdk.checkpointing import Checkpointing
    from stepbase.sdk.middleware import Factory

R = TypeVar("R")


class Decorate(Protocol):
    """What `App.function` returns: makes a `Function` of a handler, typed by what it returns."""

    @overload
    def __call__(self, handler: Callable[..., Awaitable[R]], /) -> Function[R]: ...
    @overload
    def __call__(self, handler: Callable[..., R], /) -> Function[R]: ...


class App:
    """The functions of one function folder, served at one URL.

    ::

        app = App("currency")

        @app.function("award", on=AwardRequested)
        async def award(event: Event[AwardRequested], step: Step) -> None: ...

        main = serve(app)

    Args:
        app_id: Letters, digits, ``-``, ``_`` and ``.``; functions are ``<app_id>-<id>`` on the wire.
        logger: Where `ctx.logger` writes; ``logging.getLogger("stepbase.app.<app_id>")`` if not given.
        middleware: `Middleware` classes around every call and every sending of events, outermost first.
        checkpointing: Whether handlers go on after a step in the same call, its result saved on the way;
            `Checkpointing` says how.

    Raises:
        DefinitionError: If the id has another form.
    """

    def __init__(
        self,
        app_id: str,
        *,
        logger: logging.Logger | None = None,
        middleware: "Sequence[Factory]" = (),
        checkpointing: "bool | Checkpointing" = True,
    ) -> None:
        self.id = check_id(app_id, "App(id)")
        self._checkpointing = _checkpointing(checkpointing)
        self.logger = logger or logging.getLogger(f"stepbase.app.{app_id}")
        self.middleware = _middleware(middleware, f'app "{app_id}"')
        self._functions: dict[str, Function] = {}

    @property
    def functions(self) -> Mapping[str, Function]:
        """The functions by slug (`<app_id>-<id>`), without failure handlers."""
        return self._functions

    def find(self, slug: str) -> Function | None:
        """Return the function or failure handler of that slug, or None."""
        found = self._functions.get(slug)
        if found is None and slug.endswith("-failure"):
            main = self._functions.get(slug.removesuffix("-failure"))
            found = main.on_failure if main else None
        return found

    def function(
        self,
        function_id: str,
        *,
        on: Any = None,
        retries: int = 3,
        concurrency: "int | opt.Concurrency | Sequence[opt.Concurrency] | None" = None,
        throttle: "opt.Throttle | None" = None,
        rate_limit: "opt.RateLimit | None" = None,
        debounce: "opt.Debounce | None" = None,
        priority: "opt.Priority | None" = None,
        batch: "opt.Batch | None" = None,
        idempotency: str | None = None,
        singleton: "opt.Singleton | None" = None,
        cancel_on: "opt.CancelOn | Sequence[opt.CancelOn] | None" = None,
        timeouts: "opt.Timeouts | None" = None,
        on_failure: Callable[..., Any] | None = None,
        name: str | None = None,
        engine: "opt.EngineOptions | None" = None,
        middleware: "Sequence[Factory]" = (),
        checkpointing: "bool | Checkpointing | None" = None,
    ) -> Decorate:
        """Make a durable function of the handler below.

        The handler is `async def` or `def` and takes any of: ``event`` (typed by the trigger's event
        class), ``events`` (for batches), ``step`` (`Step` or `SyncStep`), ``ctx`` (`Context`).

        Args:
            function_id: Unique in the app; do not change it while runs are under way.
            on: What starts it: an event class, an event name, ``SomeEvent.where("…")``, `Cron`, a list of
                these, or None for functions that are only invoked.
            retries: Further attempts of each step, and of the code between steps, 0 to 20.
            concurrency: A number, a `Concurrency`, or up to two of them and one of runs.
            cancel_on: Events that cancel a run, up to five.
            idempotency: CEL expression; one run per value in 24 hours.
            on_failure: Handler that runs once when a run has failed for good.
            name: Title for people; the id if not given.
            middleware: `Middleware` classes around the calls of this function, inside the app's.
            checkpointing: True, False or `Checkpointing`, instead of what the app says.

        Raises:
            DefinitionError: If an option is wrong; the message says what is allowed.
        """
        if callable(function_id):
            raise DefinitionError(
                f"@app.function stands above {getattr(function_id, '__name__', 'a function')} without an id: "
                'write @app.function("id", on=…)'
            )
        options = Options(
            retries=retries,
            concurrency=_limits(concurrency),
            throttle=_one(throttle, "Throttle", "throttle"),
            rate_limit=_one(rate_limit, "RateLimit", "rate_limit"),
            debounce=_one(debounce, "Debounce", "debounce"),
            priority=_one(priority, "Priority", "priority"),
            batch=_one(batch, "Batch", "batch"),
            idempotency=idempotency,
            singleton=_one(singleton, "Singleton", "singleton"),
            cancel_on=_several(cancel_on, "CancelOn", "cancel_on"),
            timeouts=_one(timeouts, "Timeouts", "timeouts"),
            engine=_one(engine, "EngineOptions", "engine"),
            checkpointing=self._checkpointing
            if checkpointing is None
            else _checkpointing(checkpointing),
        )
        around = (*self.middleware, *_middleware(middleware, f'function "{function_id}"'))

        def decorate(handler: Callable[..., Any], /) -> Function[Any]:
            function = define(self.id, function_id, handler, on, options, name, on_failure, around)
            if function.slug in self._functions:
                raise DefinitionError(
                    f'app "{self.id}" already has a function "{function_id}", at '
                    f"{_where(self._functions[function.slug])}: give this one another id"
                )
            self._functions[function.slug] = function
            return function

        return decorate

    @property
    def api(self) -> "Api":
        """What may be asked of the server, for async code: runs, events, signals, cancelling."""
        from stepbase.sdk.api import Api

        return Api(self.id)

    @property
    def api_sync(self) -> "ApiSync":
        """What may be asked of the server, for plain code; see `api`."""
        from stepbase.sdk.api import ApiSync

        return ApiSync(self.id)

    async def send(self, events: Sendable | Sequence[Sendable]) -> list[str]:
        """Send one event or several; returns the server's ids of them, in order.

        Five tries with growing pauses; the server recognises a repeated try.

        Raises:
            SendError: If the server refused one, or never answered.
        """
        return await self.send_events(to_events(events))

    def send_sync(self, events: Sendable | Sequence[Sendable]) -> list[str]:
        """Send one event or several from plain code; see `send`."""
        return self.send_events_sync(to_events(events))

    async def send_events(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send events that are already `Event`s."""
        if self.middleware:
            from stepbase.sdk.hooks import Hooks

            return await Hooks(self, self.middleware).send_events(events)
        from stepbase.sdk import sender

        return await sender.asend(events, config.inngest())

    def send_events_sync(self, events: Sequence[Event[Any]]) -> list[str]:
        """Send events that are already `Event`s, blocking."""
        if self.middleware:
            from stepbase.sdk.hooks import Hooks
            from stepbase.sdk.middleware import check_plain

            check_plain(
                self.middleware, "app.send_sync", ("before_send_events", "after_send_events")
            )
            return Hooks(self, self.middleware).send_events_sync(events)
        from stepbase.sdk import sender

        return sender.send(events, config.inngest())


def _where(function: Function) -> str:
    """Return the line at which a function's handler begins."""
    code = getattr(function.handler, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function.handler)


def _one(value: Any, kind: str, name: str) -> Any:
    if value is None:
        return None
    from stepbase.sdk import options

    if not isinstance(value, getattr(options, kind)):
        raise DefinitionError(f"{name}=…: expected {kind}(…), got {value!r:.80}")
    return value


def _checkpointing(value: object) -> "bool | Checkpointing":
    if isinstance(value, bool):
        return value
    from stepbase.sdk.checkpointing import Checkpointing

    if not isinstance(value, Checkpointing):
        raise DefinitionError(
            f"checkpointing=…: expected True, False or Checkpointing(…), got {value!r:.80}"
        )
    return value


def _several(value: Any, kind: str, name: str) -> tuple[Any, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(_one(each, kind, name) for each in values)


def _middleware(given: Any, where: str) -> "tuple[Factory, ...]":
    if isinstance(given, tuple) and not given:
        return ()
    from stepbase.sdk.middleware import check

    return check(given, where)


def _limits(value: Any) -> tuple[Any, ...]:
    if isinstance(value, int):
        from stepbase.sdk.options import Concurrency

        return (Concurrency(value),)
    return _several(value, "Concurrency", "concurrency")
