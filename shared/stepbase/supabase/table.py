"""Writes to tables as values: the four verbs of ``step.table``, and what their filters mean. Pure and light.

`public.stepbase_write` does the rest, in one transaction with the ledger; it knows the columns and their
types, so nothing of them is known here.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, TypeVar

from stepbase.errors import NonRetriableError
from stepbase.supabase.call import (
    PreparedCall,
    business_key,
    lock_timeout_ms,
    plain,
    user_claims,
)

R_co = TypeVar("R_co", covariant=True)

OPERATORS: Final = ("eq", "neq", "gt", "gte", "lt", "lte", "in", "is_null")
"""What may follow a column and ``__`` in a filter."""


@dataclass(frozen=True, slots=True)
class PreparedWrite(PreparedCall):
    """A write with everything `public.stepbase_write` needs but the step.

    Attributes:
        function: What is done, for messages: ``insert into purchases``.
        args: ``rows`` and ``on_conflict``, or ``values`` and ``filters``, as that SQL function reads them.
        returns: None if the rows that were written are not wanted.
    """

    through: ClassVar[str] = "stepbase_write"

    table: str
    action: str

    def with_input(self, given: Sequence[Any], where: str) -> PreparedCall:
        """Refuse: what a write is given is not for people to write down.

        Raises:
            NonRetriableError: Always.
        """
        raise NonRetriableError(
            f"{where} writes to {self.table}: a rerun cannot give it other arguments; run again from a "
            "step before it, or without arguments"
        )

    def parameters(self, step: str) -> dict[str, Any]:
        """Return the arguments of `public.stepbase_write`."""
        return {
            "p_table": self.table,
            "p_action": self.action,
            "p_args": self.args,
            "p_run_id": self.run_id,
            "p_step": step,
            "p_key": self.key,
            "p_as_user": self.claims,
            "p_timeout_ms": self.timeout_ms,
            "p_returning": self.returns is not None,
        }


class Table(Generic[R_co]):
    """A table that a step is about to write to; ``step.table`` makes it, and one method is called on it.

    Each method returns the rows that were written; in an ``async def`` handler it is awaited.
    """

    __slots__ = (
        "_as_user",
        "_is_used",
        "_key",
        "_name",
        "_returns",
        "_run_id",
        "_timeout",
        "_write",
    )

    def __init__(
        self,
        write: Callable[[PreparedWrite], R_co],
        run_id: str,
        name: str,
        key: str | None,
        returns: Any,
        as_user: Mapping[str, Any] | None,
        timeout: timedelta | str | None,
    ) -> None:
        self._is_used = False
        self._write = write
        self._run_id = run_id
        self._name = name
        self._key = key
        self._returns = returns
        self._as_user = as_user
        self._timeout = timeout

    def __del__(self) -> None:
        """Warn of a table to which nothing is done, as Python does of a coroutine that is not awaited."""
        if not self._is_used:
            message = (
                f"step.table for {self._name!r} wrote nothing: "
                "insert, upsert, update or delete must follow"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def insert(self, rows: object, /) -> R_co:
        """Insert one row or a list of them; columns that a row does not name take their defaults.

        Args:
            rows: Each a mapping by column, a pydantic model or a dataclass.
        """
        return self._do("insert into", {"rows": self._rows(rows)})

    def upsert(
        self,
        rows: object,
        /,
        on_conflict: str | Sequence[str] | None = None,
        *,
        ignore_duplicates: bool = False,
    ) -> R_co:
        """Insert rows, or set the given columns of those that are there.

        Args:
            rows: As for `insert`.
            on_conflict: Columns with a unique constraint that tell whether a row is there, ``"a, b"`` or a
                list; the primary key if not given.
            ignore_duplicates: Leave rows that are there as they are; those are not returned.
        """
        args: dict[str, Any] = {"rows": self._rows(rows)}
        if on_conflict is not None:
            names = on_conflict.split(",") if isinstance(on_conflict, str) else on_conflict
            args["on_conflict"] = [name.strip() for name in names]
        if ignore_duplicates:
            args["ignore_duplicates"] = True
        return self._do("upsert into", args)

    def update(self, values: Mapping[str, Any], /, **filters: Any) -> R_co:
        """Set columns of the rows that all filters fit: ``update({"status": "paid"}, id=7)``.

        Args:
            values: By column.
            filters: ``column=value``, or ``column__op=value`` with eq, neq, gt, gte, lt, lte, in or is_null;
                None means SQL's null. At least one.
        """
        where = self._where("update")
        if not isinstance(values, Mapping) or not values:
            raise NonRetriableError(f"{where}: there is nothing to set, got {values!r}")
        sent = plain(values, f"{where}: values")
        return self._do("update", {"values": sent, "filters": parse_filters(where, filters)})

    def delete(self, /, **filters: Any) -> R_co:
        """Delete the rows that all filters fit, and return them; filters as for `update`."""
        return self._do("delete from", {"filters": parse_filters(self._where("delete"), filters)})

    def _do(self, verb: str, args: dict[str, Any]) -> R_co:
        action = verb.partition(" ")[0]
        where = self._where(action)
        if not self._name:
            raise NonRetriableError("step.table: the table's name is empty")
        return self._write(
            PreparedWrite(
                function=f"{verb} {self._name}",
                args=args,
                returns=self._returns,
                run_id=self._run_id,
                key=business_key(where, self._key),
                claims=user_claims(where, self._as_user),
                timeout_ms=lock_timeout_ms(where, self._timeout),
                table=self._name,
                action=action,
            )
        )

    def _where(self, action: str) -> str:
        self._is_used = True
        return f"step.table({self._name}).{action}"

    def _rows(self, rows: object) -> list[dict[str, Any]]:
        self._is_used = True
        given = rows if isinstance(rows, Sequence) and not isinstance(rows, str) else [rows]
        sent = []
        for i, row in enumerate(given):
            value = plain(row, f"{self._name}: rows[{i}]")
            if not isinstance(value, dict):
                raise NonRetriableError(
                    f"{self._name}: rows[{i}]: a row is a mapping, a model or a dataclass, got {row!r:.80}"
                )
            sent.append(value)
        return sent


def parse_filters(where: str, filters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn keyword filters into ``{"amount": {"gte": 1, "lt": 5}}``.

    What follows the last ``__`` is the operator if it is one of `OPERATORS`; if not it belongs to the
    column's name.

    Raises:
        NonRetriableError: Without a filter, or for a value that no row could fit; beginning with `where`.
    """
    if not filters:
        raise NonRetriableError(
            f"{where}: it needs a filter such as id=7; without one it would reach every row"
        )
    found: dict[str, dict[str, Any]] = {}
    for name, value in filters.items():
        column, _, op = name.rpartition("__")
        if not column or op not in OPERATORS:
            column, op = name, "eq"
        if value is None and op in ("eq", "neq"):
            op, value = "is_null", op == "eq"
        tests = found.setdefault(column, {})
        if op in tests:
            raise NonRetriableError(f"{where}: {name}= says the same about {column} twice")
        tests[op] = _operand(f"{where}: {name}", op, value)
    return found


def _operand(where: str, op: str, value: Any) -> Any:
    if op == "is_null":
        if not isinstance(value, bool):
            raise NonRetriableError(f"{where} is True or False, got {value!r}")
        return value
    if op == "in":
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise NonRetriableError(f"{where} takes a list of values, got {value!r}")
        return plain(list(value), where)
    if value is None:
        raise NonRetriableError(f"{where}: nothing compares with None")
    return plain(value, where)
