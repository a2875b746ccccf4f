"""What `step.fetch` returns."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from stepbase.sdk import typed
from stepbase.sdk.fault import CodedError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """The answer to a request that the server made.

    Attributes:
        url: What was asked for.
        status: The HTTP status.
        headers: Names in lower case.
        body: The body as text.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: str

    @overload
    def json(self, returns: type[T]) -> T: ...
    @overload
    def json(self) -> Any: ...
    def json(self, returns: Any = typed.UNTYPED) -> Any:
        """Return the body's JSON, as a pydantic model or another type if one is given.

        Raises:
            NonRetriableError: If it is no JSON, or does not fit the type.
        """
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise CodedError(
                f"the body of {self.url} is not JSON ({error}): {self.body[:80]!r}",
                "output_invalid",
            ) from error
        if returns is typed.UNTYPED:
            return value
        return typed.decode(value, returns, f"the body of {self.url}")


def read_response(value: Any, what: str) -> FetchResponse:
    """Read the memo of a fetch; a header that was sent several times is joined.

    Raises:
        CodedError: Final; if it is none.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("status_code"), int):
        raise CodedError(f"{what}: the server gave no response: {value!r:.80}", "output_invalid")
    headers = value.get("headers") or {}
    return FetchResponse(
        url=str(value.get("url") or ""),
        status=value["status_code"],
        headers={name.lower(): _joined(each) for name, each in headers.items()},
        body=str(value.get("body") or ""),
    )


def _joined(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
