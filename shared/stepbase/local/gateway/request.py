"""What an HTTP request asks for, read from its headers as PostgREST reads them. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl

from stepbase.local.gateway.errors import ApiError
from stepbase.local.gateway.table import Wanted

_SINGLE = "application/vnd.pgrst.object+json"
_OFFERED = ("application/json", "application/vnd.pgrst.array+json", "application/*", "*/*")
_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are lower case, `path` is what follows `/rest/v1`."""

    method: str
    path: str
    pairs: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def reads(self) -> bool:
        """Whether the request may only read."""
        return self.method in _READING

    def preference(self, name: str) -> str | None:
        """Return what the Prefer header says of `name`."""
        for part in self.headers.get("prefer", "").split(","):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return None

    def wanted(self) -> Wanted:
        """Return what should come back.

        Raises:
            ApiError: PGRST107 if only formats are accepted that are not offered.
        """
        accepted = [
            part.partition(";")[0].strip() for part in self.headers.get("accept", "*/*").split(",")
        ]
        single = accepted[0] == _SINGLE
        if not single and not any(kind in _OFFERED for kind in accepted):
            raise ApiError(
                406,
                "PGRST107",
                f"None of these media types are available: {', '.join(accepted)}",
            )
        returning = "representation" if self.reads else self.preference("return") or "minimal"
        return Wanted(returning, self.preference("count") is not None, single)

    def schema(self, exposed: Sequence[str]) -> str:
        """Return the schema the profile headers name, else the first exposed one.

        Raises:
            ApiError: PGRST106 if it is not exposed.
        """
        name = self.headers.get("accept-profile" if self.reads else "content-profile")
        if name is None:
            return exposed[0]
        if name not in exposed:
            raise ApiError(
                406,
                "PGRST106",
                f"Invalid schema: {name}",
                None,
                f"Only the following schemas are exposed: {', '.join(exposed)}",
            )
        return name

    def range(self) -> tuple[int, int | None] | None:
        """Return offset and limit of a Range header of items, or None."""
        match = re.fullmatch(r"(\d+)-(\d*)", self.headers.get("range", "").removeprefix("items="))
        if match is None or not self.reads:
            return None
        begin = int(match[1])
        if not match[2]:
            return begin, None
        if int(match[2]) < begin:
            raise ApiError(
                416,
                "PGRST103",
                "Requested range not satisfiable",
                "The lower boundary must be lower than or equal to the upper boundary"
                " in the Range header.",
            )
        return begin, int(match[2]) - begin + 1

    def check_content_type(self) -> None:
        """Refuse a body that is not JSON.

        Raises:
            ApiError: PGRST107, 415.
        """
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip()
        if self.body and kind not in ("application/json", ""):
            raise ApiError(415, "PGRST107", f"Content-Type not acceptable: {kind}")

    def settings(self) -> dict[str, str]:
        """Return what SQL functions may ask about the request."""
        cookies = SimpleCookie(self.headers.get("cookie", ""))
        return {
            "request.method": self.method,
            "request.path": self.path,
            "request.headers": json.dumps(dict(self.headers)),
            "request.cookies": json.dumps({k: morsel.value for k, morsel in cookies.items()}),
            "response.headers": "",
            "response.status": "",
        }


def parse(
    method: str,
    path: str,
    query_string: bytes,
    raw_headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
) -> Request:
    """Take a request apart.

    Raises:
        ApiError: PGRST100 for a NUL character: PostgreSQL has no such text.
    """
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    if "\0" in path or any("\0" in name or "\0" in value for name, value in pairs):
        raise ApiError(400, "PGRST100", "the URL holds a NUL character")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers}
    return Request(method, path, pairs, headers, body)
