"""Calls of SQL functions as values: what to call, with what, and what comes back. Pure and light."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Final, Generic, TypeVar
from uuid import UUID

from stepbase.errors import NonRetriableError
from stepbase.protocol.duration import to_timedelta

T = TypeVar("T")

UNTYPED: Final = object()
"""Stands for "no type given": the result comes back as plain JSON."""

MAX_SAFE_INTEGER: Final = 2**53


@dataclass(frozen=True, slots=True)
class RpcCall(Generic[T]):
    """A call of an SQL function, ready for ``step.rpc``.

    Write one small function per SQL function, and every call of it is checked::

        def get_balance(*, p_user_id: UUID) -> RpcCall[int]:
            return RpcCall("get_balance", {"p_user_id": p_user_id}, int)

        balance = await step.rpc(get_balance(p_user_id=user_id))

    Attributes:
        function: Name of the SQL function, with its schema if that is not ``public``.
        args: Arguments by parameter name; leave defaults out.
        returns: Type of the result: plain JSON, a pydantic model, ``list[Model]``, Decimal, …
    """

    function: str
    args: Mapping[str, Any] = field(default_factory=dict)
    returns: type[T] | Any = UNTYPED


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call with everything `public.stepbase_call` needs but the step.

    Attributes:
        through: The SQL function that carries it.
        function: What is called, also for messages.
        args: Arguments as plain JSON; Decimals and big integers as strings.
        key: The business key, or None.
        claims: JWT claims of the user it runs as, or None for the service role.
        timeout_ms: How long it may wait for locks, or None for the database's own limit.
    """

    through: ClassVar[str] = "stepbase_call"

    function: str
    args: dict[str, Any]
    returns: Any
    run_id: str
    key: str | None
    claims: dict[str, Any] | None
    timeout_ms: int | None

    def with_input(self, given: Sequence[Any], where: str) -> "PreparedCall":
        """Return the call with the arguments of a rerun: one object, by parameter name.

        Raises:
            NonRetriableError: If it is something else.
        """
        if len(given) != 1 or not isinstance(given[0], dict):
            raise NonRetriableError(
                f"{where} calls {self.function}: a rerun gives it one argument, a JSON object with the "
                f'parameters by name, as in {{"p_user_id": "…"}}; got {json.dumps(given)[:200]}'
            )
        return replace(self, args=given[0])

    def parameters(self, step: str) -> dict[str, Any]:
        """Return the arguments of the SQL function that carries it."""
        return {
            "p_function": self.function,
            "p_args": self.args,
            "p_run_id": self.run_id,
            "p_step": step,
            "p_key": self.key,
            "p_as_user": self.claims,
            "p_timeout_ms": self.timeout_ms,
        }


def prepare(
    run_id: str,
    call: "RpcCall[Any] | str",
    args: Mapping[str, Any] | None,
    key: str | None,
    returns: Any,
    as_user: Mapping[str, Any] | None,
    timeout: timedelta | str | None,
) -> PreparedCall:
    """Put a call together.

    Raises:
        NonRetriableError: If an argument cannot be sent; the message names it.
    """
    if isinstance(call, str):
        call = RpcCall(call, args or {}, returns)
    elif args is not None:
        raise NonRetriableError(
            f"step.rpc({call.function}(…), args): a typed call has its arguments already"
        )
    if not call.function:
        raise NonRetriableError("step.rpc: the SQL function's name is empty")
    where = f"step.rpc({call.function})"
    return PreparedCall(
        function=call.function,
        args={name: plain(value, f"{call.function}: {name}") for name, value in call.args.items()},
        returns=call.returns,
        run_id=run_id,
        key=business_key(where, key),
        claims=user_claims(where, as_user),
        timeout_ms=lock_timeout_ms(where, timeout),
    )


def business_key(where: str, key: str | None) -> str | None:
    """Check ``key=``; `where` begins the message of the NonRetriableError."""
    if key is not None and (not isinstance(key, str) or not key or "\x00" in key):
        raise NonRetriableError(
            f'{where}: key= is text such as f"award:{{source_id}}", got {key!r}'
        )
    return key


def user_claims(where: str, as_user: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Turn ``as_user=`` into claims with ``sub``; as `business_key`."""
    if as_user is None:
        return None
    claims = dict(as_user)
    if "sub" not in claims and "id" in claims:
        claims["sub"] = claims["id"]
    if not claims.get("sub"):
        raise NonRetriableError(
            f"{where}: as_user= needs the user's claims with sub (or id), got {sorted(claims)}; "
            "an event carries them in event.user"
        )
    return {name: plain(value, f"{where}: as_user.{name}") for name, value in claims.items()}


def lock_timeout_ms(where: str, timeout: timedelta | str | None) -> int | None:
    """Turn ``timeout=`` into milliseconds; as `business_key`."""
    if timeout is None:
        return None
    try:
        milliseconds = math.ceil(to_timedelta(timeout) / timedelta(milliseconds=1))
    except (TypeError, ValueError) as error:
        raise NonRetriableError(f"{where}: timeout=: {error}") from error
    if milliseconds < 1:
        raise NonRetriableError(f"{where}: timeout= must be positive, got {timeout!r}")
    return milliseconds


def plain(value: Any, where: str) -> Any:
    """Turn an argument into JSON the database reads exactly: Decimals, big integers, times as text.

    Raises:
        NonRetriableError: If it cannot be; the message says where it is.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, where)
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int | float):
        return _number(value, where)
    if isinstance(value, Mapping):
        return {
            _text(str(key), where): plain(item, f"{where}.{key}") for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return _object(value, where)


def _number(value: float, where: str) -> Any:
    if isinstance(value, int):
        return int(value) if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(int(value))
    if not math.isfinite(value):
        raise NonRetriableError(f"{where}: {value} is not a JSON number")
    return value


def _object(value: Any, where: str) -> Any:
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value / timedelta(microseconds=1):.0f} microseconds"
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        return plain(dump(value, by_alias=True), where)
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: plain(getattr(value, name), f"{where}.{name}") for name in fields}
    raise NonRetriableError(f"{where}: {type(value).__name__} cannot be sent to the database")


def _text(value: str, where: str) -> str:
    if "\x00" in value:
        raise NonRetriableError(f"{where}: contains a NUL character, which Postgres cannot store")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NonRetriableError(f"{where}: contains a lone surrogate; it is not UTF-8") from None
    return value
