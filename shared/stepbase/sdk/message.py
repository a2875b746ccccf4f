"""What hosts pass in and out: a request and a response, of no web framework."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """What a host passes on.

    Attributes:
        url: Scheme, host and path as the host saw them, without the query.
        headers: Names in lower case.
    """

    method: str
    url: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Response:
    """What a host sends back."""

    status: int
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)
