"""Steps that the server does, for plain `def` handlers: waits, invokes, signals, requests, models.

The base of `SyncStep`; kept apart because their types need room. The verbs are loaded when they are used.
"""

from collections.abc import Mapping, Sequence
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


class SyncServerSteps(Steps):
    """The steps of `ServerSteps`, without await."""

    __slots__ = ()

    def _do(self, verb: Verb[T]) -> T:
        raise NotImplementedError("SyncStep does this")

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
    ) -> Event[T] | None: ...
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
    ) -> Event[dict[str, Any]] | None: ...
    def wait_for_event(
        self,
        step_id: str,
        event: type[Any] | str,
        *,
        match: str | None = None,
        if_: str | None = None,
        timeout: timedelta | str,
        look_back: timedelta | str | None = None,
    ) -> Event[Any] | None:
        """Wait until an event arrives; returns it, or None when time is up.

        See `Step.wait_for_event`.
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
    ) -> T: ...
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
    ) -> T: ...
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
    ) -> Any: ...
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
    ) -> Any:
        """Run another function, of this app or another, and return its result.

        See `Step.invoke`.
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
    ) -> "Signal[T] | None": ...
    @overload
    def wait_for_signal(
        self,
        step_id: str,
        signal: str,
        *,
        timeout: timedelta | str,
        on_conflict: "OnConflict" = "fail",
    ) -> "Signal[Any] | None": ...
    def wait_for_signal(
        self,
        step_id: str,
        signal: str,
        *,
        timeout: timedelta | str,
        on_conflict: "OnConflict" = "fail",
        returns: Any = typed.UNTYPED,
    ) -> "Signal[Any] | None":
        """Wait until a signal of that name is sent; returns it, or None when time is up.

        See `Step.wait_for_signal`.
        """
        from stepbase.sdk import verbs_wait

        return self._do(
            verbs_wait.wait_for_signal(self._open(), step_id, signal, timeout, on_conflict, returns)
        )

    def send_signal(self, step_id: str, signal: str, data: Any = None) -> str | None:
        """Send a signal; returns the id of the run it woke, or None if none was waiting.

        See `Step.send_signal`.
        """
        from stepbase.sdk import questions, verbs_wait
        from stepbase.sdk.ask import drive

        def send(name: str, data: str) -> str | None:
            return drive(questions.give_signal(name, data, tries=1))

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
    ) -> "FetchResponse":
        """Let the server make an HTTP request, so that no function waits for the answer.

        See `Step.fetch`.
        """
        from stepbase.sdk import verbs_remote

        return self._do(verbs_remote.fetch(self._open(), step_id, url, method, headers, body, json))

    @property
    def ai(self) -> "SyncAI":
        """Steps in which the server asks a model: `infer` for any provider, `openai` typed."""
        return SyncAI(self)


class SyncAI:
    """The steps of `AI`, without await; `step.ai`."""

    __slots__ = ("_steps",)

    def __init__(self, steps: SyncServerSteps) -> None:
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
    ) -> T: ...
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
    ) -> Any: ...
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
    ) -> Any:
        """Let the server ask a model; returns the provider's JSON. See `AI.infer`."""
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
    ) -> "ChatCompletion":
        """Let the server ask OpenAI's chat API, or another one that speaks it. See `AI.openai`."""
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
