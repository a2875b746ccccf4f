"""The apps of a lab: their functions, as the server knows them and as handlers, and who answers for each."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from stepbase.engine.starts import Function as Target
from stepbase.errors import ProtocolError
from stepbase.protocol import ids, names
from stepbase.protocol.reply import Reply, decode_reply
from stepbase.protocol.sync import decode_function
from stepbase.sdk.app import App
from stepbase.sdk.endpoint import Endpoint
from stepbase.sdk.function import Function
from stepbase.sdk.message import Request, Response
from stepbase.testing.state import Leased
from stepbase.testing.world import ORIGIN, SETTINGS

_SERVED: Final = f"{ORIGIN}/api/inngest"


class Directory:
    """Functions by slug, failure handlers included.

    Attributes:
        targets: The same functions as the server knows them.
    """

    def __init__(self, apps: Sequence[App]) -> None:
        self._functions: dict[str, Function[Any]] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self.targets: list[Target] = []
        for app in apps:
            endpoint = Endpoint(app, framework="test", settings=SETTINGS)
            for function in app.functions.values():
                failure = [function.on_failure] if function.on_failure else []
                for each in (function, *failure):
                    self._functions[each.slug] = each
                    self._endpoints[each.slug] = endpoint
                self.targets += [_target(app, wire) for wire in function.wire(_SERVED)]

    def __getitem__(self, slug: str) -> Function[Any]:
        return self._functions[slug]

    def slug_of(self, function: Function[Any] | str) -> str:
        """Return the slug of a function, or of its id, with or without the app's.

        Raises:
            AssertionError: If it names none, or several.
        """
        name = function.slug if isinstance(function, Function) else function
        found = [name] if name in self._functions else []
        found = found or [each for each in self._functions if each.partition("-")[2] == name]
        if len(found) != 1:
            raise AssertionError(
                f"{name!r} names {len(found) or 'no'} functions of {', '.join(self._functions)}"
            )
        return found[0]

    def endpoint(self, slug: str) -> Endpoint:
        """Return what answers calls of a function."""
        return self._endpoints[slug]


def request(leased: Leased, body: bytes) -> Request:
    """Return what a server would post for a call."""
    headers = {
        "content-type": "application/json",
        names.RUN_ID: leased.run_id,
        names.STEP_ID: leased.step_id,
        names.GENERATION_ID: str(leased.gen),
        names.JOB_ID: leased.job,
        names.SERVER_KIND: "dev",
    }
    if leased.is_together:
        headers[names.TOGETHER] = "true"
    return Request("POST", _SERVED, f"fnId={leased.slug}&stepId={leased.step_id}", headers, body)


def decoded(response: Response) -> Reply | ProtocolError:
    """Read an answer as a server does."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    try:
        return decode_reply(response.status, headers, response.body)
    except ProtocolError as error:
        return error


def _target(app: App, wire: Mapping[str, Any]) -> Target:
    config = decode_function(wire)
    return Target(ids.function_uuid(config.slug, config.url), app.id, 1, config)
