"""What stands in for the code of steps and for SQL functions, and what was asked of it."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from stepbase.errors import NonRetriableError
from stepbase.protocol.ids import hash_step_id
from stepbase.sdk import typed
from stepbase.supabase.call import PreparedCall
from stepbase.supabase.table import PreparedWrite

REAL: Final = object()
"""The result of a fake that only fails: once it has, the real thing runs."""


@dataclass(frozen=True, slots=True)
class RpcRecord:
    """A call of an SQL function, or a write to a table.

    Attributes:
        function: Its name; of a write what is done, such as ``"insert into orders"``.
        args: The arguments as the database would get them: plain JSON, UUIDs and times as text.
        key: The business key, or None.
        as_user: The claims it ran with, or None for the service role.
        is_replayed: The key was known, so the first result was given back and nothing called.
    """

    function: str
    args: Mapping[str, Any]
    key: str | None = None
    as_user: Mapping[str, Any] | None = None
    is_replayed: bool = False


@dataclass(slots=True)
class Fake:
    """Fails so many times, then gives a result: a value, an exception to raise, or a callable."""

    what: str
    result: Any = REAL
    error: BaseException | None = None
    failures: float = 0
    is_used: bool = False

    @property
    def is_at_work(self) -> bool:
        """False once the real thing is to run."""
        return self.failures > 0 or self.result is not REAL

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result as plain JSON, or an awaitable of it; raises what is to be raised."""
        self.is_used = True
        if self.failures > 0 and self.error is not None:
            self.failures -= 1
            raise self.error
        found = self.result(*args, **kwargs) if callable(self.result) else self.result
        return self._later(found) if inspect.isawaitable(found) else self._plain(found)

    async def _later(self, found: Awaitable[Any]) -> Any:
        return self._plain(await found)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            raise value
        return json.loads(typed.encode(value, type(value), self.what))


@dataclass(slots=True)
class Fakes:
    """Fakes by step id and by SQL function, and the ledger of calls with keys."""

    steps: dict[str, Fake] = field(default_factory=dict)
    rpcs: dict[str, Fake] = field(default_factory=dict)
    tables: dict[str, Fake] = field(default_factory=dict)
    _ledger: dict[str, tuple[PreparedCall, Any]] = field(default_factory=dict)

    def step(self, step_id: str) -> Fake:
        """Return the fake of a step id, made if there is none."""
        return self.steps.setdefault(step_id, Fake(f'the fake of step "{step_id}"'))

    def rpc(self, function: str) -> Fake:
        """Return the fake of an SQL function, made if there is none."""
        name = function.removeprefix("public.")
        return self.rpcs.setdefault(name, Fake(f"the fake of SQL function {name}"))

    def table(self, table: str) -> Fake:
        """Return the fake of a table, made if there is none."""
        name = table.removeprefix("public.")
        return self.tables.setdefault(name, Fake(f"the fake of table {name}"))

    def of_step(self, step_id: str, hashed: str) -> Fake | None:
        """Return what stands in for a step now: of this use of the id ("charge:1"), or of all."""
        if hashed != hash_step_id(step_id):
            numbered = [each for each in self.steps if hash_step_id(each) == hashed]
            for each in numbered:
                return self.steps[each] if self.steps[each].is_at_work else None
        fake = self.steps.get(step_id)
        return fake if fake is not None and fake.is_at_work else None

    def of_call(self, prepared: PreparedCall) -> Fake | None:
        """Return what stands in for an SQL function, or for a table that is written to."""
        if isinstance(prepared, PreparedWrite):
            fake = self.tables.get(prepared.table.removeprefix("public."))
        else:
            fake = self.rpcs.get(prepared.function.removeprefix("public."))
        return fake if fake is not None and fake.is_at_work else None

    def call(
        self, fake: Fake, record: Callable[[RpcRecord], None], prepared: PreparedCall, step: str
    ) -> Any:
        """Call an SQL function's fake as the ledger would: a key that is known gives its first result.

        Raises:
            NonRetriableError: If the key was used with other arguments.
        """
        own = f"key:{prepared.key}" if prepared.key else f"run:{prepared.run_id}:{step}"
        key = f"{prepared.through}:{own}"
        known = self._ledger.get(key)
        record(record_of(prepared, is_replayed=known is not None))
        if known is not None:
            _check_same(prepared, known[0])
            return known[1]
        found = fake.answer(**arguments_of(prepared))
        keep = partial(self._keep, key, prepared)
        return _kept_later(keep, found) if inspect.isawaitable(found) else keep(found)

    def _keep(self, key: str, prepared: PreparedCall, value: Any) -> Any:
        self._ledger[key] = (prepared, value)
        return value

    @property
    def unused(self) -> list[str]:
        """What was faked and never asked for, by step id and SQL function."""
        return [
            name
            for fakes in (self.steps, self.rpcs, self.tables)
            for name, fake in fakes.items()
            if not fake.is_used
        ]


async def _kept_later(keep: Callable[[Any], Any], found: Awaitable[Any]) -> Any:
    return keep(await found)


def arguments_of(prepared: PreparedCall) -> dict[str, Any]:
    """Return what a fake is called with: a write's also say what is done."""
    if isinstance(prepared, PreparedWrite):
        return {"action": prepared.action, **prepared.args}
    return prepared.args


def record_of(prepared: PreparedCall, *, is_replayed: bool = False) -> RpcRecord:
    """Return what a test may want to know of a call."""
    return RpcRecord(prepared.function, prepared.args, prepared.key, prepared.claims, is_replayed)


def _check_same(prepared: PreparedCall, first: PreparedCall) -> None:
    if prepared.function != first.function:
        raise NonRetriableError(
            f"key {prepared.key!r} belongs to a call of {first.function}, not of {prepared.function}"
        )
    for name in sorted(prepared.args.keys() | first.args.keys()):
        if prepared.args.get(name) != first.args.get(name):
            raise NonRetriableError(
                f"{prepared.function}: key {prepared.key!r} was used with another {name}"
            )
