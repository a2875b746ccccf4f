"""What hosts pass in and out: a request and a response, of no web framework."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Chunks = TypeVar("Chunks")


@dataclass(frozen=True, slots=True)
class Request:
    """What a host passes on.

    Attributes:
        url: Scheme, host and path as the host saw them, without the query.
        headers: Names in lower case.
        raw: The host's own object: Flask's request, the ASGI scope or the WSGI environ.
    """

    method: str
    url: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    raw: Any = field(repr=False, default=None)


@dataclass(slots=True)
class Response:
    """What a host sends back."""

    status: int
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream(Response, Generic[Chunks]):
    """A response whose body comes bit by bit.

    Attributes:
        chunks: The body's bytes: an iterator for sync hosts, an async one for the others.
    """

    chunks: Chunks = field(kw_only=True)
