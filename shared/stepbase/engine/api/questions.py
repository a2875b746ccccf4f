"""What GraphQL's root fields answer: one method per field of `Query` in `schema.graphql`, by its name.

Everything is a key look-up. Values are dicts by the names of the schema; one that is large or costs a query
of its own is a function, called only if it is asked for. Documents are executed in a thread of their own, but
the store's connections belong to the engine's loop, so look-ups are made there, one after the other: no
document, however it is written, takes more than one connection from the calls, nor more than its budget.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import asyncpg
from graphql import GraphQLError, GraphQLResolveInfo

from stepbase.engine.api import forms, spans
from stepbase.engine.api.answers import iso
from stepbase.engine.api.budget import Budget
from stepbase.engine.api.forms import Answer
from stepbase.engine.registry import Registry
from stepbase.engine.store import Store
from stepbase.protocol.ids import is_ulid
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.memo import MemoKind, decode_memo

T = TypeVar("T")
Info = GraphQLResolveInfo

MOST_LISTED = 100
# Events are as large as 3 MiB: the next are looked up when these are paid for.
_EVENTS_AT_ONCE = 10
_MOST_ATTEMPTS = 1000


class Questions:
    """The root value of one request.

    Args:
        loop: Where the store is used.
        budget: What the answer may take.
    """

    def __init__(
        self, store: Store, registry: Registry, loop: asyncio.AbstractEventLoop, budget: Budget
    ) -> None:
        self.budget = budget
        self._store = store
        self._registry = registry
        self._loop = loop
        self._turn = asyncio.Lock()

    async def run(self, _: Info, runID: str) -> Answer:
        """One run by id."""
        return self._run(await self._known_run(runID))

    async def runTrace(self, _: Info, runID: str) -> Answer:
        """The root span of a run."""
        return await self._trace(await self._known_run(runID))

    async def runTrigger(self, _: Info, runID: str) -> Answer:
        """The events that a run is for."""
        await self._known_run(runID)
        row = await self._once(self._store.get_trigger, runID)
        if row is None or not row["payloads"]:
            raise GraphQLError(f"the events of run {runID} are no longer kept")
        first = forms.parsed(row["payloads"][0])
        return {
            "IDs": row["ids"],
            "payloads": forms.asked(lambda: [forms.text_of(each) for each in row["payloads"]]),
            "eventName": first.get("name"),
            "timestamp": forms.happened(first),
            "isBatch": row["is_batch"],
            "cron": forms.schedule_of(first),
        }

    async def runTraceSpanOutputByID(self, _: Info, outputID: str) -> Answer:
        """What the span with this outputID returned, or its error."""
        asked = spans.OutputId.parse(outputID)
        if asked is None:
            raise GraphQLError(f"Invalid output ID: {outputID:.60}")
        if asked.kind == "run":
            run = await self._known_run(asked.run_id)
            if run["ended_at"] is None:
                raise GraphQLError(f"run {asked.run_id} has not ended")
            return forms.outcome(None if run["output"] is not None else run["error"], run["output"])
        row = await self._once(
            lambda: self._store.get_memo(
                asked.run_id,
                step=asked.key if asked.kind == "step" else None,
                attempt=int(asked.key) if asked.kind == "attempt" else None,
            )
        )
        if row is None:
            raise GraphQLError(f"there is no output {outputID:.60}")
        memo = decode_memo(json.loads(row["memo"]))
        is_error, text = memo.kind is MemoKind.ERROR, dumps(memo.value)
        return forms.outcome(text if is_error else None, None if is_error else text)

    async def event(self, _: Info, query: Mapping[str, str]) -> Answer:
        """One event by its internal id, with its runs."""
        row = await self._known_event(query["eventId"])
        runs = await self._once(self._store.get_runs_of, [row["id"]], MOST_LISTED)
        return self._event(row, runs)

    async def eventV2(self, _: Info, id: str) -> Answer:
        """One event by its internal id."""
        row = await self._known_event(id)
        event = forms.parsed(row["payload"])

        async def runs(_: Info) -> list[Answer]:
            found = await self._once(self._store.get_runs_of, [id], MOST_LISTED)
            return [self._run(run) for run in found]

        return {
            "id": id,
            "idempotencyKey": forms.sender_id(row, event),
            "name": event["name"],
            "receivedAt": iso(row["received_at"]),
            "occurredAt": forms.happened(event),
            "version": event.get("v"),
            "raw": forms.asked(lambda: forms.text_of(row["payload"])),
            "runs": runs,
        }

    async def events(self, _: Info, query: Mapping[str, str]) -> list[Answer]:
        """The newest events."""
        rows = await self._newest(MOST_LISTED, None, query.get("lastEventId"))
        return [self._event(row, runs) for row, runs in await self._with_runs(rows)]

    async def stream(self, _: Info, query: Mapping[str, object]) -> list[Answer]:
        """The newest events with their runs, those of the server itself only if asked for."""
        limit, after, before = query.get("limit"), query.get("after"), query.get("before")
        rows = await self._newest(
            max(1, min(MOST_LISTED, limit if isinstance(limit, int) else 20)),
            after if isinstance(after, str) else None,
            before if isinstance(before, str) else None,
        )
        items = []
        for row, runs in await self._with_runs(rows):
            event = forms.parsed(row["payload"])
            schedule = forms.schedule_of(event)
            if not query.get("includeInternalEvents") and forms.is_internal(event):
                continue
            items.append(
                {
                    "id": row["id"],
                    "trigger": schedule or event["name"],
                    "type": "EVENT" if schedule is None else "CRON",
                    "createdAt": iso(row["received_at"]),
                    "inBatch": False,
                    "runs": [self._member(run) for run in runs],
                }
            )
        return items

    def functions(self, _: Info) -> list[Answer]:
        """Every function that is not archived."""
        known = self._registry.functions.by_id.values()
        return [forms.function_of(each) for each in known if not each.is_archived]

    async def _once(
        self, question: Callable[..., Coroutine[object, object, T]], *args: object
    ) -> T:
        async with self._turn:
            self.budget.start_lookup()
            asked = asyncio.run_coroutine_threadsafe(question(*args), self._loop)
            found = await asyncio.wrap_future(asked)
            self.budget.end_lookup(found)
            return found

    async def _known_run(self, run_id: str) -> "asyncpg.Record":
        if not is_ulid(run_id):
            raise GraphQLError(f"Invalid run ID: {run_id:.60}")
        rows = await self._once(lambda: self._store.get_runs(run_id=run_id))
        if not rows:
            raise GraphQLError(f"run {run_id} is not known here")
        return rows[0]

    async def _known_event(self, event_id: str) -> "asyncpg.Record":
        if not is_ulid(event_id):
            raise GraphQLError(f"Invalid event ID: {event_id:.60}")
        row = await self._once(self._store.get_event, event_id)
        if row is None:
            raise GraphQLError("Event not found")
        return row

    async def _newest(
        self, limit: int, older_than: str | None, newer_than: str | None
    ) -> "list[asyncpg.Record]":
        for given in (older_than, newer_than):
            if given is not None and not is_ulid(given):
                raise GraphQLError(f"Invalid event ID: {given:.60}")
        found: list[asyncpg.Record] = []
        while len(found) < limit:
            most = min(_EVENTS_AT_ONCE, limit - len(found))
            rows = await self._once(self._store.list_events, most, older_than, None, None, None)
            newer = [row for row in rows if newer_than is None or row["id"] > newer_than]
            found += newer
            if len(newer) < most:
                break
            older_than = newer[-1]["id"]
        return found

    async def _with_runs(
        self, rows: "Sequence[asyncpg.Record]"
    ) -> "list[tuple[asyncpg.Record, list[asyncpg.Record]]]":
        of: dict[str, list[asyncpg.Record]] = {row["id"]: [] for row in rows}
        for run in await self._once(self._store.get_runs_of, list(of), MOST_LISTED):
            of[run["event_id"]].append(run)
        return [(row, of[row["id"]]) for row in rows]

    def _run(self, run: "asyncpg.Record") -> Answer:
        function = self._registry.functions.by_id.get(run["function_id"])
        known = forms.function_of(function) if function else None
        run_id = run["run_id"]

        async def event(_: Info) -> Answer:
            row = await self._once(self._store.get_event, run["event_id"])
            return forms.parsed(row["payload"]) if row else {}

        async def name(info: Info) -> object:
            return (await event(info)).get("name")

        async def schedule(info: Info) -> str | None:
            return forms.schedule_of(await event(info))

        async def ids(_: Info) -> list[str]:
            row = await self._once(self._store.get_trigger, run_id)
            return row["ids"] if row else []

        async def is_batch(_: Info) -> bool:
            row = await self._once(self._store.get_trigger, run_id)
            return row is not None and row["is_batch"]

        async def trace(_: Info, preview: bool | None = None) -> Answer:
            return await self._trace(run)

        return {
            "id": run_id,
            "functionID": str(run["function_id"]),
            "function": known,
            "appID": known and known["appID"],
            "app": known and known["app"],
            "status": spans.RUN_STATUS[run["status"]],
            "queuedAt": iso(run["created_at"]),
            "startedAt": iso(run["started_at"]) if run["started_at"] else None,
            "endedAt": iso(run["ended_at"]) if run["ended_at"] else None,
            "output": self._output_of(run_id),
            "triggerIDs": ids,
            "eventName": name,
            "isBatch": is_batch,
            "cronSchedule": schedule,
            "trace": trace,
        }

    async def _trace(self, run: "asyncpg.Record") -> Answer:
        run_id, known = run["run_id"], self._registry.functions.by_id
        steps = await self._once(self._store.get_trace, run_id)
        attempts = await self._once(self._store.get_attempts, run_id, _MOST_ATTEMPTS)

        def slug_of(function_id: UUID) -> str | None:
            function = known.get(function_id)
            return function.config.slug if function else None

        name = slug_of(run["function_id"]) or str(run["function_id"])
        return spans.trace(run, name, steps, attempts, slug_of)

    def _member(self, run: "asyncpg.Record") -> Answer:
        function = self._registry.functions.by_id.get(run["function_id"])
        return {
            "id": run["run_id"],
            "functionID": str(run["function_id"]),
            "function": forms.function_of(function) if function else None,
            "eventID": run["event_id"],
            "status": spans.RUN_STATUS[run["status"]],
            "startedAt": iso(run["started_at"]) if run["started_at"] else None,
            "finishedAt": iso(run["ended_at"]) if run["ended_at"] else None,
            "output": self._output_of(run["run_id"]),
        }

    def _output_of(self, run_id: str) -> Callable[[Info], Awaitable[str | None]]:
        async def output(_: Info) -> str | None:
            rows = await self._once(lambda: self._store.get_runs(run_id=run_id))
            return (rows[0]["output"] or rows[0]["error"]) if rows else None

        return output

    def _event(self, row: "asyncpg.Record", runs: "Sequence[asyncpg.Record]") -> Answer:
        event = forms.parsed(row["payload"])
        return {
            "id": row["id"],
            "externalID": forms.sender_id(row, event),
            "name": event["name"],
            "createdAt": iso(row["received_at"]),
            "payload": forms.asked(lambda: dumps(forms.parsed(row["payload"]).get("data"))),
            "raw": forms.asked(lambda: forms.text_of(row["payload"])),
            "status": forms.status_of([run["status"] for run in runs]),
            "pendingRuns": sum(run["ended_at"] is None for run in runs),
            "totalRuns": len(runs),
            "functionRuns": [self._member(run) for run in runs],
        }
