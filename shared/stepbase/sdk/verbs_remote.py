"""Verbs whose work the server does itself: another function's run, a request, a model's answer. Pure.

Nothing of ours is held meanwhile. See `sdk.verbs` for what a verb is.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stepbase.errors import DefinitionError, NonRetriableError
from stepbase.protocol.op import Opcode
from stepbase.sdk import typed
from stepbase.sdk.check import wire_duration
from stepbase.sdk.event import event_name_of
from stepbase.sdk.fetched import FetchResponse, read_response
from stepbase.sdk.function import Function
from stepbase.sdk.incoming import fit
from stepbase.sdk.replay import MISSING, NewStep, Replay
from stepbase.sdk.verbs import Verb, argument
from stepbase.sdk.verbs_wait import LONGEST

if TYPE_CHECKING:
    from stepbase.sdk.chat import ChatCompletion

OPENAI_URL = "https://api.openai.com/v1"


def invoke(
    replay: Replay,
    step_id: str,
    function: object,
    data: object,
    timeout: timedelta | str | None,
    user: Mapping[str, Any] | None,
    v: str | None,
    returns: Any,
) -> Verb[Any]:
    """Run another function and return its result."""
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        payload: dict[str, Any] = {"data": _payload(step_id, function, data), "v": v}
        if user:
            payload["user"] = json.loads(argument(dict(user), f'step "{step_id}": user=…'))
        opts = {
            "function_id": _slug(step_id, function),
            "payload": payload,
            "timeout": None if timeout is None else _timeout(step_id, timeout),
        }
        value = yield NewStep(place, Opcode.INVOKE_FUNCTION, place.step_id, opts=opts)
    if returns is typed.UNTYPED and isinstance(function, Function):
        returns = function.returns
    if returns is typed.UNTYPED:
        return value
    return typed.decode(value, returns, f'step "{step_id}"')


def _slug(step_id: str, function: object) -> str:
    if isinstance(function, Function):
        return function.slug
    if isinstance(function, str) and "-" in function.strip("-"):
        return function
    raise NonRetriableError(
        f'step "{step_id}": expected a function made by @app.function, or its name on the wire, '
        f'"<app>-<function>"; got {function!r:.80}'
    )


def _timeout(step_id: str, timeout: timedelta | str) -> str:
    try:
        return wire_duration(timeout, f'step "{step_id}": timeout=…', most=LONGEST)
    except DefinitionError as error:
        raise NonRetriableError(str(error)) from error


def _payload(step_id: str, function: object, data: object) -> dict[str, Any]:
    """Check the data of an invoke against the function's event classes, and return it as JSON."""
    models = tuple(function.models.values()) if isinstance(function, Function) else ()
    named = event_name_of(type(data)) is not None
    if named and models and not isinstance(data, models):
        known = ", ".join(model.__name__ for model in models)
        raise NonRetriableError(
            f'step "{step_id}": the function takes {known}, got {type(data).__name__}'
        )
    found = {} if data is None else json.loads(argument(data, f'step "{step_id}": data=…'))
    if not isinstance(found, dict):
        raise NonRetriableError(
            f'step "{step_id}": data=… is a dict or an EventData instance, got {data!r:.80}'
        )
    if len(models) == 1 and not named:
        fit(found, models[0], f'step "{step_id}"')
    return found


def fetch(
    replay: Replay,
    step_id: str,
    url: str,
    method: str,
    headers: Mapping[str, str] | None,
    body: str | None,
    content: object,
) -> Verb[FetchResponse]:
    """Let the server make a request.

    Args:
        content: Becomes the body as JSON, unless it is `typed.UNTYPED`.
    """
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        where = f'step "{step_id}"'
        if not isinstance(method, str) or not method.isalpha():
            raise NonRetriableError(f'{where}: method=…: expected "GET" or so, got {method!r:.80}')
        sent = _headers(headers, where)
        opts: dict[str, Any] = {
            "url": _url(url, where),
            "method": method.upper(),
            "headers": sent,
        }
        if content is not typed.UNTYPED:
            if body is not None:
                raise NonRetriableError(f"{where}: give body= or json=, not both")
            body = argument(content, f"{where}: json=…")
            if not any(name.lower() == "content-type" for name in sent):
                sent["content-type"] = "application/json"
        if body is not None:
            if not isinstance(body, str):
                raise NonRetriableError(
                    f"{where}: body=… is text, because the wire carries text; got {body!r:.80}"
                )
            opts["body"] = body
        value = yield NewStep(place, Opcode.GATEWAY, place.step_id, opts=opts)
    return read_response(value, f'step "{step_id}"')


def infer(
    replay: Replay,
    step_id: str,
    *,
    format: str,
    url: str,
    auth_key: str | None,
    body: Mapping[str, Any],
    model: str | None,
    headers: Mapping[str, str] | None,
    returns: Any,
) -> Verb[Any]:
    """Let the server ask a model; its provider's answer comes back as it is."""
    place = replay.reach(step_id)
    value = replay.recall(place)
    if value is MISSING:
        where = f'step "{step_id}"'
        if not isinstance(format, str) or not format:
            raise NonRetriableError(
                f'{where}: format=… names the provider\'s API, e.g. "openai-chat", "anthropic" or "gemini"; '
                f"got {format!r:.80}"
            )
        if not isinstance(auth_key, str):
            raise NonRetriableError(
                f"{where}: no API key: give auth_key=…; step.ai.openai takes it from OPENAI_API_KEY too"
            )
        asked = json.loads(argument(body, f"{where}: body=…"))
        if not isinstance(asked, dict):
            raise NonRetriableError(f"{where}: body=… is a dict, got {body!r:.80}")
        if model is not None:
            asked = {"model": model, **asked}
        opts = {
            "type": "step.ai.infer",
            "url": _url(url, where),
            "auth_key": auth_key,
            "format": format,
            "headers": _headers(headers, where),
            "body": asked,
        }
        value = yield NewStep(place, Opcode.AI_GATEWAY, place.step_id, opts=opts)
    if returns is typed.UNTYPED:
        return value
    return typed.decode(value, returns, f'step "{step_id}"')


def openai(
    replay: Replay,
    step_id: str,
    *,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    auth_key: str | None,
    base_url: str | None,
    headers: Mapping[str, str] | None,
    parameters: Mapping[str, Any],
) -> "Verb[ChatCompletion]":
    """Let the server ask a model that speaks OpenAI's chat API."""
    url = (base_url or OPENAI_URL).rstrip("/") + "/chat/completions"
    found: ChatCompletion = yield from infer(
        replay,
        step_id,
        format="openai-chat",
        url=url,
        auth_key=auth_key,
        body={"messages": list(messages), **parameters},
        model=model,
        headers=headers,
        returns=typed.UNTYPED,
    )
    return found


def _url(url: object, where: str) -> str:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise NonRetriableError(
            f"{where}: url=… must begin with http:// or https://, got {url!r:.80}"
        )
    return url


def _headers(headers: Mapping[str, str] | None, where: str) -> dict[str, str]:
    found = dict(headers or {})
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise NonRetriableError(
                f"{where}: headers=… maps names to text, got {name!r}: {value!r:.80}"
            )
    return found
