"""Typed payloads. Importing this module loads pydantic, so only the first event class pays for it."""

from typing import Any, ClassVar

from pydantic import BaseModel

from stepbase.errors import DefinitionError
from stepbase.sdk.trigger import EventTrigger, check_event_name


class EventData(BaseModel):
    """Base of event classes: a pydantic model and the event's name in one.

    ::

        class OrderPaid(EventData, name="order/paid"):
            order_id: int

    Use the class as trigger (``on=OrderPaid``), send instances of it (``app.send(OrderPaid(…))``),
    and receive it as ``event.data``. A subclass without ``name=`` only shares fields.
    """

    __event_name__: ClassVar[str] = ""

    def __init_subclass__(cls, *, name: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if name is not None:
            check_event_name(name, f"class {cls.__name__}(EventData, name=…)")
        cls.__event_name__ = name or ""

    @classmethod
    def where(cls, expression: str) -> EventTrigger:
        """Return a trigger for the events of this class for which a CEL expression holds.

        For example ``OrderPaid.where("event.data.amount > 100000")``.

        Raises:
            DefinitionError: If the class has no event name or the expression is empty.
        """
        if not cls.__event_name__:
            raise DefinitionError(
                f'{cls.__name__} has no event name: write class {cls.__name__}(EventData, name="…")'
            )
        return EventTrigger(cls.__event_name__, expression, cls)
