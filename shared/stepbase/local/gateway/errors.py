"""Errors as PostgREST reports them: its own codes, and SQLSTATEs mapped to HTTP statuses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

# Longest prefix wins (PostgREST, references/errors). 42501 depends on who asks: see `from_sqlstate`.
_STATUS_BY_SQLSTATE: Mapping[str, int] = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "23503": 409,
    "23505": 409,
    "25": 500,
    "25006": 405,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53": 503,
    "53400": 500,
    "54": 500,
    "55": 500,
    "57": 500,
    "57P01": 503,
    "58": 500,
    "F0": 500,
    "HV": 500,
    "P0": 500,
    "P0001": 400,
    "XX": 500,
}


@dataclass
class ApiError(Exception):
    """One error answer; `headers` go with it."""

    status: int
    code: str
    message: str
    details: object = None
    hint: object = None
    headers: list[tuple[str, str]] = field(default_factory=list)

    def body(self) -> bytes:
        """Return the JSON body clients parse."""
        return json.dumps(
            {
                "code": self.code,
                "details": self.details,
                "hint": self.hint,
                "message": self.message,
            }
        ).encode()


def from_sqlstate(
    sqlstate: str,
    message: str,
    details: str | None,
    hint: str | None,
    *,
    anonymous: bool,
) -> ApiError:
    """Return the answer for a database error; `anonymous` requests get 401 where others get 403."""
    if sqlstate == "PGRST":
        return _raised_by_user(message, details)
    if sqlstate.startswith("PT") and sqlstate[2:].isdecimal():
        return ApiError(int(sqlstate[2:]), sqlstate, message, details, hint)
    if sqlstate == "42501":
        status = 401 if anonymous else 403
    else:
        status = next(
            (
                _STATUS_BY_SQLSTATE[sqlstate[:n]]
                for n in range(5, 1, -1)
                if sqlstate[:n] in _STATUS_BY_SQLSTATE
            ),
            400,
        )
    headers = [("WWW-Authenticate", "Bearer")] if status == 401 else []
    return ApiError(status, sqlstate, message, details, hint, headers)


def _raised_by_user(message: str, details: str | None) -> ApiError:
    """Return what `raise sqlstate 'PGRST'` asked for: its message and detail are JSON objects."""
    try:
        body = json.loads(message)
        answer = json.loads(details or "null")
        return ApiError(
            int(answer["status"]),
            str(body["code"]),
            str(body["message"]),
            body.get("details"),
            body.get("hint"),
            [(str(k), str(v)) for k, v in answer.get("headers", {}).items()],
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return ApiError(
            500,
            "PGRST121",
            "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
            f"{type(error).__name__}: {error}",
            "MESSAGE must be an object with code and message, DETAIL one with status and headers",
        )


def unreachable(details: str) -> ApiError:
    """Return the answer while no connection to the database can be made."""
    return ApiError(503, "PGRST000", "Database connection error. Retrying the connection.", details)


def lost(details: str) -> ApiError:
    """Return the answer when the connection broke during a request; its outcome is unknown."""
    return ApiError(503, "PGRST001", "Database client error. Retrying the connection.", details)


def no_catalogue(details: str) -> ApiError:
    """Return the answer while the schema cache cannot be loaded."""
    return ApiError(
        503, "PGRST002", "Could not query the database for the schema cache. Retrying.", details
    )


def saturated() -> ApiError:
    """Return the answer when no connection became free in time."""
    return ApiError(504, "PGRST003", "Timed out acquiring connection from connection pool.")
