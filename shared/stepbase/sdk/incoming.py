"""Events on their way in: the wire's object becomes an `Event`, its payload checked by its class."""

from collections.abc import Mapping
from typing import Any

from stepbase.sdk import typed
from stepbase.sdk.event import Event, from_payload
from stepbase.sdk.fault import CodedError

_INTERNAL = "_inngest"
"""What servers add to the data of an invoked function; no field of its event class."""


def read_event(raw: Mapping[str, Any], model: Any) -> Event[Any]:
    """Build the event users see; without a model its data stays a dict.

    Raises:
        CodedError: Final; if the payload does not fit its event class. The message names the field.
    """
    data = raw.get("data")
    data = {} if data is None else data
    if model is not None:
        if isinstance(data, dict) and _INTERNAL in data:
            data = {key: value for key, value in data.items() if key != _INTERNAL}
        data = fit(data, model, f'event "{raw.get("name")}" ({raw.get("id")})')
    return from_payload(raw, data)


def fit(data: Any, model: Any, what: str) -> Any:
    """Read a payload as its event class.

    Raises:
        CodedError: Final; if it does not fit. The message names the field.
    """
    try:
        return model.model_validate(data)
    except ValueError as error:
        first = error
    try:
        return typed.decode(data, model, "event")  # strict models read JSON more kindly
    except CodedError:
        raise CodedError(
            f"{what} does not fit {model.__name__}: data.{typed.explain(first)}", "event_invalid"
        ) from first
