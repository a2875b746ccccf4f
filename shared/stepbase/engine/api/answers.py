"""How the API answers: JSON with the server's headers, errors in one shape."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from stepbase.protocol import names
from stepbase.protocol.jsontext import dumps_bytes

# There is one environment, and it needs no name.
NO_ENV = "00000000-0000-0000-0000-000000000000"

MAX_BODY = 4 * 1024 * 1024
"""What the body of a request may have, if nothing else is said of it."""


class Json(Response):
    """A JSON response written by the wire's own encoder."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encode."""
        return dumps_bytes(content)


class RawJson(Response):
    """A response whose body is JSON text already."""

    media_type = "application/json"


def error(status: int, message: str) -> Json:
    """Return the error shape of the wire: `{"error", "status"}`."""
    return Json({"error": message, "status": status}, status_code=status)


def too_large(most: int) -> Json:
    """Return the answer to a body that has more bytes than it may."""
    return error(413, f"a request may have {most} bytes")


def wrapped(data: str) -> RawJson:
    """Return JSON text wrapped as `/v1` does: `{"data": …, "metadata": {…}}`."""
    at = iso(datetime.now(UTC))  # noqa: TID251  # when this answer was made, for the client only
    return RawJson(f'{{"data":{data},"metadata":{{"fetched_at":"{at}","cached_until":"{at}"}}}}')


def iso(instant: datetime) -> str:
    """Write an instant as the wire does, in UTC with a Z."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def kind_header(server_kind: str) -> dict[str, str]:
    """Return the header that every answer of a server carries."""
    return {names.SERVER_KIND: server_kind}


async def body_of(request: Request, most: int) -> bytes | None:
    """Read the body, but no more of it than a request may have: None if it has more."""
    if int(request.headers.get("content-length", 0)) > most:
        return None
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            return None
    return b"".join(chunks)
