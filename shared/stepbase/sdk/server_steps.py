"""Steps that the server does, for `async def` handlers: waits, invokes, signals, requests, models.

The base of `Step`; kept apart because their types need room. The verbs are loaded when they are used.
"""

from collections.abc import Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from stepbase import config
from stepbase.sdk import typed
from stepbase.sdk.event import Event
from stepbase.sdk.function import Function
from stepbase.sdk.verbs import Verb
from stepbase.sdk.work import Steps

if TYPE_CHECKING:
    from stepbase.sdk.chat import ChatCompletion
    from stepbase.sdk.fetched import FetchResponse
    from stepbase.sdk.verbs_wait import OnConflict, Signal

T = TypeVar("T")


class ServerSteps(Steps):
    """Steps that the server does; nothing of the function's is held meanwhile."""

    __slots__ = ()

    def _do(self, verb: Verb[T]) -> Coroutine[Any, Any, T]:
        raise NotImplementedError("Step does this")

    @overload
    def wait_for_event(
        self,
        step_id: str,
        event: type[T],
        *,
        match: str | None = None,
        if_: str | None = None,
        timeout: timedelta | str,
        look_back: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, Event[T] | None]: ...
    @overload
    def wait_for_event(
        self,
        step_id: str,
        event: str,
        *,
        match: str | None = None,
        if_: str | None = None,
        timeout: timedelta | str,
        look_back: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, Event[dict[str, Any]] | None]: ...
    def wait_for_event(
        self,
        step_id: str,
        event: type[Any] | str,
        *,
        match: str | None = None,
        if_: str | None = None,
        timeout: timedelta | str,
        look_back: timedelta | str | None = None,
    ) -> Coroutine[Any, Any, Event[Any] | None]:
        """Wait until an event arrives; returns it, or None when time is up.

        Only events that arrive after the wait has begun count, unless it looks back.

        Args:
            event: An event class, which checks the payload, or an event name.
            match: A path that must be equal in the event that started the run and the new one, e.g.
                ``"data.order_id"``.
            if_: Instead of `match`: a CEL expression over ``event`` (the run's) and ``async`` (the new one).
            timeout: How long to wait, 1 second to 366 days.
            look_back: Events that arrived at most this long before count too, 1 second to 1 day: the oldest
                that fits, without those that this run was started by or has waited for. Only stepbase's
                own engine does it.

        Raises:
            NonRetriableError: If an argument is wrong, or the payload does not fit the event class.
        """
        from stepbase.sdk import verbs_wait

        return self._do(
            verbs_wait.wait_for_event(self._open(), step_id, event, match, if_, timeout, look_back)
        )

    @overload
    def invoke(
        self,
        step_id: str,
        function: Function[Any] | str,
        data: Any = None,
        *,
        timeout: timedelta | str | None = None,
        user: Mapping[str, Any] | None = None,
        v: str | None = None,
        returns: type[T],
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def invoke(
        self,
        step_id: str,
        function: Function[T],
        data: Any = None,
        *,
        timeout: timedelta | str | None = None,
        user: Mapping[str, Any] | None = None,
        v: str | None = None,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def invoke(
        self,
        step_id: str,
        function: str,
        data: Any = None,
        *,
        timeout: timedelta | str | None = None,
        user: Mapping[str, Any] | None = None,
        v: str | None = None,
    ) -> Coroutine[Any, Any, Any]: ...
    def invoke(
        self,
        step_id: str,
        function: Function[Any] | str,
        data: Any = None,
        *,
        timeout: timedelta | str | None = None,
        user: Mapping[str, Any] | None = None,
        v: str | None = None,
        returns: Any = typed.UNTYPED,
    ) -> Coroutine[Any, Any, Any]:
        """Run another function, of this app or another, and return its result.

        Args:
            function: A function made by ``@app.function``, or ``"<app>-<function>"``.
            data: What it finds as ``event.data``: a dict, or an instance of its event class.
            timeout: How long to wait for it, at most 366 days, a year if not given; it goes on after that.
            user: What it finds as ``event.user``.
            v: What it finds as ``event.v``.
            returns: The type of the result, if the function's annotation does not say.

        Raises:
            StepError: When it failed, did not end in time, or does not exist.
            NonRetriableError: If an argument is wrong; data that does not fit names the field.
        """
        from stepbase.sdk import verbs_remote

        return self._do(
            verbs_remote.invoke(self._open(), step_id, function, data, timeout, user, v, returns)
        )

    @overload
    def wait_for_signal(
        self,
        step_id: str,
        signal: str,
        *,
        timeout: timedelta | str,
        on_conflict: "OnConflict" = "fail",
        returns: type[T],
    ) -> Coroutine[Any, Any, "Signal[T] | None"]: ...
    @overload
    def wait_for_signal(
        self,
        step_id: str,
        signal: str,
        *,
        timeout: timedelta | str,
        on_conflict: "OnConflict" = "fail",
    ) -> Coroutine[Any, Any, "Signal[Any] | None"]: ...
    def wait_for_signal(
        self,
        step_id: str,
        signal: str,
        *,
        timeout: timedelta | str,
        on_conflict: "OnConflict" = "fail",
        returns: Any = typed.UNTYPED,
    ) -> Coroutine[Any, Any, "Signal[Any] | None"]:
        """Wait until a signal of that name is sent; returns it, or None when time is up.

        Unlike an event a signal reaches one run: a name can be waited for only once at a time.

        Args:
            signal: Its name, unique to what is waited for, e.g. ``f"approve:{order_id}"``.
            timeout: How long to wait, 1 second to 366 days.
            on_conflict: If another run waits for it already: ``"fail"`` fails this run, ``"replace"`` takes
                the other's place.
            returns: The type of the signal's data.
        """
        from stepbase.sdk import verbs_wait

        return self._do(
            verbs_wait.wait_for_signal(self._open(), step_id, signal, timeout, on_conflict, returns)
        )

    def send_signal(
        self, step_id: str, signal: str, data: Any = None
    ) -> Coroutine[Any, Any, str | None]:
        """Send a signal; returns the id of the run it woke, or None if none was waiting.

        If the answer to a sent signal is lost, the step is tried again, and may then find nobody waiting.
        """
        from stepbase.sdk import questions, verbs_wait
        from stepbase.sdk.ask import adrive

        async def send(name: str, data: str) -> str | None:
            return await adrive(questions.give_signal(name, data, tries=1))

        return self._do(verbs_wait.send_signal(self._open(), step_id, signal, data, send))

    def fetch(
        self,
        step_id: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        json: Any = typed.UNTYPED,
    ) -> Coroutine[Any, Any, "FetchResponse"]:
        """Let the server make an HTTP request, so that no function waits for the answer.

        Args:
            url: http or https, as the server reaches it.
            headers: Sent as they are; the server keeps them with the run.
            body: The body as text.
            json: Instead of `body`: data that is sent as JSON.

        Raises:
            StepError: When there was no answer, or none with a status from 200 to 299, at the last attempt.
        """
        from stepbase.sdk import verbs_remote

        return self._do(verbs_remote.fetch(self._open(), step_id, url, method, headers, body, json))

    @property
    def ai(self) -> "AI":
        """Steps in which the server asks a model: `infer` for any provider, `openai` typed."""
        return AI(self)


class AI:
    """Steps in which the server asks a model; `step.ai`."""

    __slots__ = ("_steps",)

    def __init__(self, steps: ServerSteps) -> None:
        self._steps = steps

    @overload
    def infer(
        self,
        step_id: str,
        *,
        format: str,
        url: str,
        auth_key: str,
        body: Mapping[str, Any],
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        returns: type[T],
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def infer(
        self,
        step_id: str,
        *,
        format: str,
        url: str,
        auth_key: str,
        body: Mapping[str, Any],
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, Any]: ...
    def infer(
        self,
        step_id: str,
        *,
        format: str,
        url: str,
        auth_key: str,
        body: Mapping[str, Any],
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        returns: Any = typed.UNTYPED,
    ) -> Coroutine[Any, Any, Any]:
        """Let the server ask a model, so that no function waits for the answer; returns the provider's JSON.

        Args:
            format: The provider's API, which says how the key is sent: ``"openai-chat"``, ``"anthropic"``,
                ``"gemini"``, … Any text is passed through to the server.
            url: Where the request goes.
            auth_key: The provider's key; the server keeps it with the run.
            body: The request, in the provider's form.
            model: Becomes ``model`` of the body, unless that has one.
            returns: The type of the answer.

        Raises:
            StepError: When there was no good answer at the last attempt.
        """
        from stepbase.sdk import verbs_remote

        verb = verbs_remote.infer(
            self._steps._open(),
            step_id,
            format=format,
            url=url,
            auth_key=auth_key,
            body=body,
            model=model,
            headers=headers,
            returns=returns,
        )
        return self._steps._do(verb)

    def openai(
        self,
        step_id: str,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        auth_key: str | None = None,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Coroutine[Any, Any, "ChatCompletion"]:
        """Let the server ask OpenAI's chat API, or another one that speaks it.

        Args:
            messages: For example ``[{"role": "user", "content": "Hello"}]``.
            auth_key: The key; ``OPENAI_API_KEY`` of the environment if not given.
            base_url: ``"https://api.openai.com/v1"`` if not given.
            parameters: Further fields of the request, such as ``temperature=0``.

        Raises:
            StepError: When there was no good answer at the last attempt.
        """
        from stepbase.sdk import verbs_remote

        verb = verbs_remote.openai(
            self._steps._open(),
            step_id,
            model=model,
            messages=messages,
            auth_key=auth_key or config.openai_api_key(),
            base_url=base_url,
            headers=headers,
            parameters=parameters,
        )
        return self._steps._do(verb)
