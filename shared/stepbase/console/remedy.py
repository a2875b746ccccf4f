"""What to do about an error, where its kind says it: for people who see it for the first time. Pure.

docs/troubleshooting.md says the same at length.
"""

import json
import re
from collections.abc import Iterator, Mapping

_SQLSTATE = re.compile(r"'code': '([0-9A-Z]{5})'")
_MOST = 10


def remedy(error: str | None, http_status: int | None, *, is_live: bool) -> str:
    """Return one or two sentences, or "" if the error's kind says nothing.

    Args:
        error: JSON text of an error, as runs and attempts store it.
        http_status: Of the attempt that failed, or None if nobody answered.
        is_live: Whether the run goes on.
    """
    chain = list(_chain(error))
    if not chain:
        return ""
    if chain[0].get("name") == "NoAnswer":
        return _no_answer(http_status)
    if chain[0].get("code") == "event_invalid":
        return (
            "mend what sends the event and send it again (the event's page, Send one like it); or let the"
            " model take it, and run this again."
        )
    return next((_sql(found[1], is_live) for each in chain if (found := _sqlstate(each))), "")


def _no_answer(status: int | None) -> str:
    if status == 401:
        return (
            "give the app and the engine the same INNGEST_SIGNING_KEY, and start the app again. While you"
            " change keys, the app also has the old one as INNGEST_SIGNING_KEY_FALLBACK. The run waits, and"
            " goes on by itself."
        )
    if status is None:
        return (
            "start the app, or sync it where it is now (Apps has the URL that is called). This uses up no"
            " attempt for an hour; the run goes on by itself."
        )
    return "see under Apps which URL is called, and what answers there: the app itself did not."


def _sql(state: str, is_live: bool) -> str:
    again = (
        "the next attempt comes by itself"
        if is_live
        else "then run this again from the step, below in the timeline"
    )
    if state == "P0001":
        return (
            f"the SQL function itself refuses (P0001). Mend the data or the SQL function; {again}."
        )
    if state[:2] in ("22", "23"):
        return (
            f"the database refuses these values ({state}). Mend them where they come from; {again}."
        )
    if state == "42501":
        return f"a grant is missing (42501): give service_role the right that the message names; {again}."
    if state in ("42883", "42P01"):
        return (
            f"the database has no such function or table ({state}). Apply the migrations: supabase db push,"
            f" or stepbase db apply; {again}."
        )
    return ""


def _sqlstate(error: Mapping[str, object]) -> re.Match[str] | None:
    """Find what the client of Supabase says in the text of its error, which is all that it says."""
    return _SQLSTATE.search(str(error.get("message") or ""))


def _chain(error: str | None) -> Iterator[Mapping[str, object]]:
    try:
        raw = json.loads(error or "null")
    except (ValueError, RecursionError):
        return
    for _ in range(_MOST):
        if not isinstance(raw, Mapping):
            return
        yield raw
        raw = raw.get("cause")
