"""What `EncryptionMiddleware` sealed, opened for the test, with the function's own keys."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stepbase.protocol.jsontext import dumps, loads
from stepbase.protocol.reply import Output, Reply
from stepbase.sdk.function import Function
from stepbase.sdk.middleware import Factory, Input, kind_of


class Opener:
    """Opens outcomes and events of one function; what is not sealed stays as it is."""

    def __init__(self, function: Function[Any]) -> None:
        self._factories: tuple[Factory, ...] = ()
        if function.middleware:
            from stepbase.middleware.encryption import EncryptionMiddleware

            self._factories = tuple(
                each
                for each in function.middleware
                if issubclass(kind_of(each, function.slug), EncryptionMiddleware)
            )

    def memo(self, raw: Any) -> Any:
        """Return a memo, opened."""
        return self._read(Input("", 0, None, [], {"": raw})).steps[""] if self._factories else raw

    def reply(self, reply: Reply) -> Reply:
        """Return a reply with the function's result opened."""
        if not self._factories or not isinstance(reply, Output):
            return reply
        return replace(reply, text=dumps(self.memo({"data": loads(reply.text)})["data"]))

    def event(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an event, opened."""
        return self._read(Input("", 0, None, [dict(raw)], {})).events[0] if self._factories else raw

    def _read(self, given: Input) -> Input:
        for factory in self._factories:
            factory().transform_input(given)
        return given
