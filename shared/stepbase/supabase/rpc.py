"""Exactly-once calls: carrying a `PreparedCall` to `public.stepbase_call`, and reading the answer.
A write to a table is carried in the same way, to `public.stepbase_write`.

Everything is retried but what cannot come out differently: errors the function raises itself (P0001),
bad data (classes 22 and 23), PT4xx, and the ledger's own (SB0…). The rest of the list only adds a
hint for the person who reads the attempt.
"""

import inspect
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from stepbase import standin
from stepbase.errors import NonRetriableError, StepbaseError
from stepbase.supabase.call import PreparedCall

# No connection from PostgREST to the database, none free, or a server that is starting or stopping.
_AWAY = re.compile(r"PGRST00[0-3]|50[234]|08...|57P0[123]|53300")
_FINAL = re.compile(r"P0001|2[23]...|PT4..|SB0..")
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"42883|PGRST202|PGRST002|PGRST203",
        "the SQL function, or stepbase's own that calls it, is not there (yet): apply the migrations "
        "(stepbase db apply, supabase db push); if they are applied, run: notify pgrst, 'reload schema'",
    ),
    (
        r"42P01|42703",
        "the table or column is not there (yet): apply the migrations",
    ),
    (
        r"25006",
        "the database is read-only: a failover is under way, or the disk is full; "
        "on Supabase see Database → Settings",
    ),
    (
        r"401|PGRST30[123]",
        "the Supabase key was refused: it is expired, revoked or of another project; "
        "check SUPABASE_SECRET_KEY and SUPABASE_URL",
    ),
    (
        r"42501|403",
        "a grant is missing: stepbase_call and stepbase_write need the secret key (service_role), and what "
        "they reach needs: grant execute on function … to service_role, or grant select, insert, update, "
        "delete on table … to service_role (or to authenticated, with as_user=)",
    ),
    (r"57014", "the call took longer than the statement timeout: let it do less at a time"),
    (r"42725", "the SQL function is overloaded: name its schema, or one more argument"),
    (r"55P03", "it waited too long for a lock; timeout=… says how long it may"),
    (
        r"40001|40P01",
        "two transactions were in each other's way; the next attempt usually succeeds",
    ),
    (
        r"08...|53...|57P0.|PGRST00[013]|50[234]|5..",
        "the database or its API is away or overloaded",
    ),
)


class RpcError(StepbaseError):
    """A call or write did not reach the database, or failed in a way that may pass; it is tried again.

    Attributes:
        code: SQLSTATE, PostgREST code or HTTP status, or None when there was no answer.
        is_outage: True if Supabase is away (no answer, no database behind it): stepbase's own engine
            counts no attempt for that, for up to an hour.
    """

    def __init__(self, message: str, code: str | None, *, is_outage: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_outage = is_outage


def call(prepared: PreparedCall, step: str) -> Any:
    """Carry a call, blocking; returns its result as plain JSON.

    Raises:
        NonRetriableError: If trying again cannot help; the message is the database's.
        RpcError: If it can; the message says what to do.
    """
    fake = _fake(prepared)
    if fake is not None:
        return fake(prepared, step)
    import httpx
    from postgrest import APIError

    from stepbase.supabase.client import last_status, sync_client

    try:
        response = sync_client().rpc(prepared.through, prepared.parameters(step)).execute()
    except APIError as error:
        raise classify(prepared.function, error.json(), last_status.get()) from error
    except (httpx.HTTPError, LookupError) as error:
        raise _unreachable(prepared.function, error) from error
    return read(prepared, response.data)


async def acall(prepared: PreparedCall, step: str) -> Any:
    """Carry a call on the running event loop; see `call`."""
    fake = _fake(prepared)
    if fake is not None:
        value = fake(prepared, step)
        return await value if inspect.isawaitable(value) else value
    import httpx
    from postgrest import APIError

    from stepbase.supabase.client import async_client, last_status

    try:
        response = await async_client().rpc(prepared.through, prepared.parameters(step)).execute()
    except APIError as error:
        raise classify(prepared.function, error.json(), last_status.get()) from error
    except (httpx.HTTPError, LookupError) as error:
        raise _unreachable(prepared.function, error) from error
    return read(prepared, response.data)


def _fake(prepared: PreparedCall) -> Callable[[PreparedCall, str], Any] | None:
    stand_in = standin.current.get()
    return None if stand_in is None else stand_in.rpc(prepared)


def classify(function: str, body: Any, status: int = 0) -> Exception:
    """Turn an error body of the REST API into the exception to raise; a status stands in for no code."""
    fields = body if isinstance(body, dict) else {}
    code = str(fields.get("code") or status or "")
    message = str(fields.get("message") or "no message")
    source = RpcError(f"{function}: {message} ({code or 'no code'})", code or None)
    if _FINAL.fullmatch(code):
        final = NonRetriableError(message)
        final.__cause__ = source
        return final
    notes = [str(fields[name]) for name in ("details", "hint") if fields.get(name)]
    notes += [hint for pattern, hint in _HINTS if re.fullmatch(pattern, code)][:1]
    shown = "; ".join([f"{function}: {message} ({code or 'no code'})", *notes])
    return RpcError(shown, code or None, is_outage=_AWAY.fullmatch(code) is not None)


def _unreachable(function: str, error: Exception) -> RpcError:
    reason = str(error) or type(error).__name__
    if isinstance(error, LookupError):
        return RpcError(f"{function}: {reason}", None)
    return RpcError(
        f"{function}: no answer from Supabase ({type(error).__name__}: {reason}): "
        "check SUPABASE_URL and that the project is not paused",
        None,
        is_outage=True,
    )


def read(prepared: PreparedCall, text: Any) -> Any:
    """Read the envelope `{"data": …, "replayed": …}` and return the result as plain JSON.

    Raises:
        RpcError: If it is no envelope.
    """
    try:
        envelope = json.loads(text, parse_float=_number) if isinstance(text, str) else text
        # Where nothing is wanted, an earlier try may still have stored something.
        return None if prepared.returns is None else envelope["data"]
    except (ValueError, TypeError, KeyError) as error:
        raise RpcError(
            f"{prepared.function}: public.{prepared.through} answered {text!r:.120}, expected a JSON text "
            "with data: the migrations of this database are of another version",
            None,
        ) from error


def _number(text: str) -> float | Decimal:
    """Read a number as float if that loses nothing, else as Decimal."""
    number = float(text)
    exact = Decimal(text)
    return number if Decimal(repr(number)) == exact else exact
