"""How much one answer of GraphQL may take: look-ups, and bytes that are read for it and written into it."""

import inspect
from collections.abc import Sequence

import asyncpg

MOST_LOOKUPS = 500
MOST_BYTES = 32 * 1024 * 1024
# What a field takes beside its text: its name in the answer, and an object here while that is made.
_FIELD_BYTES = 64


class TooMuchError(Exception):
    """A document needs more than one may."""


class Budget:
    """What is left of one answer's share; text is paid for when it is read and when it is answered.

    Attributes:
        excess: What the document needs too much of, once it does.
    """

    def __init__(self) -> None:
        self.excess: str | None = None
        self._lookups = 0
        self._awaited = 0
        self._bytes = 0

    def start_lookup(self) -> None:
        """Count a look-up, before it is made.

        Raises:
            TooMuchError: It may not be made.
        """
        self._lookups += 1
        self._measure()
        if self.excess is not None:
            raise TooMuchError

    def end_lookup(self, found: object) -> None:
        """Count what a look-up found.

        Raises:
            TooMuchError: It is too much.
        """
        self._bytes += _size_of(found)
        self._measure()
        if self.excess is not None:
            raise TooMuchError

    def add_field(self) -> None:
        """Count a field of the answer, before its value is made."""
        self._bytes += _FIELD_BYTES
        self._measure()

    def add_value(self, value: object) -> None:
        """Count what a field's value is; one that has to be awaited makes a look-up, or several."""
        self._awaited += inspect.isawaitable(value)
        self._bytes += _size_of(value)
        self._measure()

    def _measure(self) -> None:
        if max(self._lookups, self._awaited) > MOST_LOOKUPS:
            self.excess = f"{MOST_LOOKUPS} look-ups"
        elif self._bytes > MOST_BYTES:
            self.excess = f"{MOST_BYTES} bytes"


def _size_of(value: object) -> int:
    """Return how many bytes of text there are in a value or in rows; objects' fields count by themselves."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, Sequence | asyncpg.Record):
        return sum(_size_of(each) for each in value)
    return 0
