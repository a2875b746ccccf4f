"""Middleware: code around every call of an app's or a function's handlers. What users subclass.

How the hooks are called is `sdk.hooks`' business; this module only says what they are.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from stepbase.errors import DefinitionError, SendError
from stepbase.sdk.message import Request, Response

if TYPE_CHECKING:
    from stepbase.sdk.app import App
    from stepbase.sdk.event import Event
    from stepbase.sdk.function import Function


@dataclass(slots=True)
class Input:
    """What a call starts from; `Middleware.transform_input` changes it in place.

    Attributes:
        run_id: The run.
        attempt: From 0.
        events: As on the wire, before event classes check them; the first is the handler's `event`.
        steps: Memos by hashed step id, as on the wire: ``{"data": …}``, ``{"error": {…}}`` or None.
        extra: Becomes `ctx.extra`: what handlers are to be given, e.g. a database connection.
    """

    run_id: str
    attempt: int
    max_attempts: int | None
    events: list[dict[str, Any]] = field(repr=False)
    steps: dict[str, Any] = field(repr=False)
    extra: dict[str, Any] = field(repr=False, default_factory=dict)


@dataclass(slots=True)
class StepInfo:
    """A step that is run or reported in this call.

    Attributes:
        step_id: The id as the user wrote it.
        hashed: The id on the wire.
        op: The opcode, e.g. ``"StepRun"`` or ``"InvokeFunction"``.
        opts: What the server is told about it; `Middleware.transform_step_input` may change it.
    """

    step_id: str
    hashed: str
    op: str
    opts: dict[str, Any] | None = field(repr=False, default=None)


@dataclass(slots=True)
class Output:
    """How a step that ran, or the handler, ended; `Middleware.transform_output` changes it in place.

    Attributes:
        step: The step, or None if the handler itself returned or raised.
        data: The result as plain JSON.
        error: The error object ``{name, message, stack, …}``, or None if it succeeded.
        exception: What was raised, if it is known.
        is_final: True if a failed handler is not tried again.
    """

    step: StepInfo | None
    data: Any = field(repr=False)
    error: dict[str, Any] | None
    exception: BaseException | None = None
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of sending events.

    Attributes:
        ids: The server's ids of those it accepted, in order.
        error: Why others were not, or None.
    """

    ids: Sequence[str]
    error: SendError | None = None


HOOKS = (
    "transform_input", "before_memoization", "after_memoization", "before_execution",
    "transform_step_input", "around_step", "after_execution", "transform_output", "before_response",
    "before_send_events", "after_send_events", "around_call",
)  # fmt: skip


class Middleware:
    """Code around every call; subclass it and write the hooks you need.

    ::

        class Timing(Middleware):
            def before_response(self, response: Response) -> None:
                response.headers["server-timing"] = "…"

        app = App("shop", middleware=[Timing])

    Every call makes one object of each class, so attributes belong to one call. Hooks may be plain
    functions or `async def`; an app with plain `def` handlers needs plain ones. `transform_input` and
    `before_…` hooks run in the order of the list, the app's first; `transform_output` and `after_…` hooks
    in reverse.

    A hook that raises fails the call, but for those that only look back (`after_execution`,
    `after_send_events`, `before_response`): what a step did counts, so their errors are logged.

    Attributes:
        app: The app.
        function: The function that is called; None when events are sent outside a call.
        request: The request as its host passed it on; `request.raw` is the host's own object.
    """

    app: "App"
    function: "Function | None" = None
    request: Request | None = None

    written_hooks: ClassVar[frozenset[str]] = frozenset()
    """The hooks the class writes."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.written_hooks = frozenset(
            name for name in HOOKS if getattr(cls, name) is not getattr(Middleware, name)
        )

    @classmethod
    def factory(cls, *args: Any, **kwargs: Any) -> "Factory":
        """Return an entry for `middleware=[…]` that gives these arguments to every object."""
        return _Made(cls, args, kwargs)

    def transform_input(self, input: Input) -> Any:
        """Change the events, the memos and `ctx.extra` before the handler sees them."""

    def before_memoization(self) -> Any:
        """Run before the first memo is replayed; once a call."""

    def after_memoization(self) -> Any:
        """Run when the last memo was replayed; not at all if the handler never asks for it."""

    def before_execution(self) -> Any:
        """Run before the first code that has not run before; once a call."""

    def transform_step_input(self, step: StepInfo) -> Any:
        """Change `step.opts` of a step that is handed to the server; once for each."""

    def after_execution(self) -> Any:
        """Run after the new code of this call, however it ended."""

    def transform_output(self, output: Output) -> Any:
        """Change a result or an error before it leaves; once for each step that ran, and for the handler."""

    def before_response(self, response: Response) -> Any:
        """Run last, before the call is answered, however it went."""

    def before_send_events(self, events: "list[Event[Any]]") -> Any:
        """Change events before they are sent; their data are plain dicts here."""

    def after_send_events(self, result: Sent) -> Any:
        """Run after events were sent, or could not be."""

    def around_call(
        self,
    ) -> AbstractContextManager[Any, Any] | AbstractAsyncContextManager[Any, Any]:
        """Return a context manager that is entered before `transform_input` and left before the answer."""
        return nullcontext()

    def around_step(
        self, step: StepInfo
    ) -> AbstractContextManager[Any, Any] | AbstractAsyncContextManager[Any, Any]:
        """Return a context manager around the work of a step; it sees what the work raises."""
        return nullcontext()


Factory = Callable[[], Middleware]
"""What `middleware=[…]` lists: a class, or anything else that makes an object when called."""


class _Made:
    """A class with its arguments, which stay out of `repr`: there are keys among them."""

    def __init__(
        self, kind: type[Middleware], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self._kind = kind
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Middleware:
        return self._kind(*self._args, **self._kwargs)

    def __repr__(self) -> str:
        return f"{self._kind.__name__}.factory(…)"


def check(given: object, where: str) -> tuple[Factory, ...]:
    """Return what `middleware=…` lists, each tried once.

    Raises:
        DefinitionError: If something is no middleware, or cannot be made.
    """
    if not isinstance(given, list | tuple):
        raise DefinitionError(f"{where}: middleware=[…] is a list of Middleware classes")
    for factory in given:
        _check_hooks(kind_of(factory, where), where)
    return tuple(given)


def kind_of(factory: Any, where: str) -> type[Middleware]:
    """Return the class a factory makes objects of."""
    if isinstance(factory, Middleware):
        name = type(factory).__name__
        raise DefinitionError(
            f"{where}: every call needs an object of its own: write {name}, or {name}.factory(…) with "
            "its arguments, not an object"
        )
    if isinstance(factory, type) and not issubclass(factory, Middleware):
        raise DefinitionError(f"{where}: {factory.__name__} is no Middleware: subclass it")
    if not callable(factory):
        raise DefinitionError(f"{where}: middleware=[…] lists Middleware classes")
    try:
        made = factory()
    except TypeError as error:
        name = getattr(factory, "__name__", repr(factory))
        raise DefinitionError(
            f"{where}: {name} cannot be made: {error}; give its arguments by {name}.factory(…)"
        ) from error
    if not isinstance(made, Middleware):
        raise DefinitionError(f"{where}: the factory made no Middleware, but a {type(made)}")
    return type(made)


def _check_hooks(kind: type[Middleware], where: str) -> None:
    for name in ("around_call", "around_step"):
        hook = getattr(kind, name)
        if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
            raise DefinitionError(
                f"{where}: {kind.__name__}.{name} is a generator: put @contextmanager of contextlib above it"
            )


def check_plain(factories: Sequence[Factory], where: str, hooks: Sequence[str] = HOOKS) -> None:
    """Refuse hooks that would have to be awaited where nothing can be.

    Raises:
        DefinitionError: If a hook is async; the message names it.
    """
    for factory in factories:
        kind = kind_of(factory, where)
        for name in sorted(kind.written_hooks & set(hooks)):
            hook = inspect.unwrap(getattr(kind, name))
            if inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook):
                raise DefinitionError(
                    f"{where}: {kind.__name__}.{name} is async, and nothing can be awaited here: make the "
                    "hook a plain function, or the handler `async def`"
                )
