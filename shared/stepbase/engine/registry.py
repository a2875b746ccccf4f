"""The engine's copy of the functions: loaded from the store, reloaded when the epoch says so."""

import asyncio
import hashlib
import json
import logging
from uuid import UUID

from stepbase.engine import expr, schedule
from stepbase.engine.starts import Function, Functions
from stepbase.engine.store import Store
from stepbase.errors import ProtocolError, StoreError
from stepbase.protocol.ids import app_uuid, function_uuid, normalize_url
from stepbase.protocol.jsontext import dumps
from stepbase.protocol.redact import redact_text
from stepbase.protocol.sync import FunctionConfig, RegisterRequest, decode_function

_log = logging.getLogger("stepbase.engine.registry")


class Registry:
    """Holds all functions; `epoch` says which state of the store they are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self.epoch = 0
        self.functions = Functions([])

    async def reload(self, *, unless_epoch: int | None = None) -> None:
        """Load everything again, unless somebody has done so since `unless_epoch`."""
        async with self._lock:
            if unless_epoch is not None and self.epoch != unless_epoch:
                return
            rows = await self._store.load_functions()
            functions = []
            for row in rows:
                if row["function_id"] is None:
                    continue
                try:
                    config = decode_function(json.loads(row["config"]))
                except ProtocolError as error:
                    _log.error(
                        "stored function cannot be read",
                        extra={"slug": row["slug"], "reason": str(error)},
                    )
                    continue
                functions.append(
                    Function(
                        function_id=row["function_id"],
                        app_name=row["app_name"],
                        version=row["version"],
                        config=config,
                        is_paused=row["is_paused"],
                        is_archived=row["is_archived"],
                    )
                )
            self.functions = Functions(functions)
            self.epoch = rows[0]["epoch"] if rows else 0

    async def get(self, function_id: UUID) -> Function | None:
        """Return a function by id, looking once into the store if it is new to us."""
        found = self.functions.by_id.get(function_id)
        if found is None:
            await self.reload()
            found = self.functions.by_id.get(function_id)
        return found

    def is_paused(self, function_id: UUID) -> bool:
        """Say whether a function makes no calls for now, as far as we know."""
        found = self.functions.by_id.get(function_id)
        return found is not None and found.is_paused

    async def register(self, request: RegisterRequest) -> tuple[UUID, bool]:
        """Store a sync; return (app id, whether anything changed).

        Raises:
            ProtocolError: If an expression or a cron schedule in it does not work.
        """
        for config in request.functions:
            check_function(config)
        rows = [
            (function_uuid(c.name, c.url), c.slug, c.name, dumps(c.raw)) for c in request.functions
        ]
        known = self.functions.by_slug
        rows = [(known[r[1]].function_id if r[1] in known else r[0], *r[1:]) for r in rows]
        flows = [dumps(c.limits.stored()) for c in request.functions]
        checksum = hashlib.sha256(
            dumps(
                [request.url, request.framework, sorted(r[3] for r in rows), sorted(flows)]
            ).encode()
        ).hexdigest()
        app_id, modified = await self._store.register_app(
            app_uuid(request.app_name),
            request.app_name,
            request.url,
            request.sdk,
            request.framework,
            checksum,
            [(*row, flow) for row, flow in zip(rows, flows, strict=True)],
            _schema_texts(request),
        )
        if modified:
            await self.reload()
            _log.info(
                "app synced",
                extra={"app": request.app_name, "functions": len(rows), "url": request.url},
            )
        return app_id, modified

    async def note_error(
        self, code: str, reason: str, *, name: str | None = None, url: str | None = None
    ) -> None:
        """Note that the app of a name, or at a URL, could not be synced; an unknown one is not noted."""
        text = redact_text(reason)
        try:
            await self._store.note_sync_error(name, url, code, text)
        except StoreError:
            _log.warning("a failed sync could not be noted", extra={"reason": text})

    async def remove(self, url: str | None, app: str | None) -> list[str]:
        """Archive the apps at a URL, of a name, or both; return their names."""
        wanted = None if url is None else normalize_url(url)
        names = [
            row["name"]
            for row in await self._store.list_apps()
            if (wanted is None or normalize_url(row["url"]) == wanted)
            and app in (None, row["name"])
        ]
        removed = await self._store.remove_apps(names) if names else []
        if removed:
            await self.reload()
            _log.info("apps removed", extra={"apps": removed})
        return removed


def _schema_texts(request: RegisterRequest) -> list[str] | None:
    if request.schemas is None:
        return None
    return [dumps(request.schemas.get(config.slug, {})) for config in request.functions]


def check_function(config: FunctionConfig) -> None:
    """Refuse at sync what would only fail when an event comes.

    Raises:
        ProtocolError: Naming the function, the field and the reason.
    """
    expressions = [(f"trigger {t.event!r}", t.expression) for t in config.triggers]
    expressions += [(f"cancel on {c.event!r}", c.if_) for c in config.cancels]
    expressions += config.rules.expressions()
    expressions += config.limits.expressions()
    for where, expression in expressions:
        if expression is None:
            continue
        try:
            expr.compile_expression(expression)
        except ProtocolError as error:
            raise ProtocolError(
                f"function {config.slug!r}, {where}: {error}", code="invalid_function"
            ) from error
    for trigger in config.triggers:
        if trigger.cron is None:
            continue
        try:
            schedule.check(trigger.cron, trigger.jitter)
        except ValueError as error:
            raise ProtocolError(
                f"function {config.slug!r}: {error}", code="invalid_function"
            ) from error
