"""The engine put together: store, registry, worker, relay, crons, listener and sweeper in one process."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Self

from stepbase import clock, failpoint
from stepbase.engine.batcher import Batcher
from stepbase.engine.buffers import Buffers
from stepbase.engine.caller import Caller
from stepbase.engine.crons import Crons
from stepbase.engine.discovery import Discovery
from stepbase.engine.executor import Executor, retrying
from stepbase.engine.gateway import Gateway
from stepbase.engine.intake import Intake
from stepbase.engine.listener import Listener
from stepbase.engine.metrics import Metrics
from stepbase.engine.mover import Mover
from stepbase.engine.registry import Registry
from stepbase.engine.relay import Relay
from stepbase.engine.settings import Settings
from stepbase.engine.store import Checkpoint, Settled, Settling, Store, Tick
from stepbase.engine.sweeper import sweep_forever
from stepbase.engine.worker import Worker
from stepbase.errors import StoreError
from stepbase.protocol.ids import ulid

if TYPE_CHECKING:
    from stepbase.engine.tracing import Tracing

_log = logging.getLogger("stepbase.engine.app")


class UlidSource:
    """Makes ULIDs that rise within this process, also when the clock steps back."""

    def __init__(self) -> None:
        self._ms = 0
        self._low = 0

    def __call__(self) -> str:
        """Return the next one."""
        ms = clock.now_ms()
        if ms > self._ms:
            self._ms = ms
            # One bit of headroom, so that counting up cannot run over.
            self._low = int.from_bytes(os.urandom(10), "big") >> 1
        else:
            self._low += 1 + int.from_bytes(os.urandom(4), "big")
        return ulid(self._ms, self._low.to_bytes(10, "big"))


class Engine:
    """One engine process; any number of them may share a database.

    Use as an async context manager: entering connects and starts the tasks, leaving drains them.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.new_id = UlidSource()
        self.owner = self.new_id()
        self._stopping = False
        self._stack = contextlib.AsyncExitStack()
        self.failure: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect and start.

        Raises:
            StoreError: If the database is away, has no fitting schema, belongs to another project (SB013),
                or has a relay on its outbox (SB015).
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the calls in flight, then stop."""
        try:
            await self.drain()
        finally:
            self._stopping = True
            await self._stack.aclose()

    async def drain(self) -> None:
        """Take no more work and wait for the calls in flight, at most `settings.drain_seconds`.

        Meanwhile all else goes on: calls may checkpoint, and what they bring is written.
        """
        if not self.worker.is_stopping:
            _log.info("draining", extra={"calls": self.worker.in_flight})
        await self.worker.drain(self.settings.drain_seconds)

    async def _start(self) -> None:
        settings = self.settings
        self.store = await Store.open(settings.database_url, owner=self.owner, lease=settings.lease)
        self._stack.push_async_callback(self.store.close)
        if settings.project is not None:
            await self.store.claim(settings.project, take_over=settings.take_over)
        self.registry = Registry(self.store)
        await self.registry.reload()
        self.caller = Caller(
            signing_key=settings.signing_keys[0] if settings.signing_keys else None,
            server_kind=settings.server_kind,
            timeout=settings.call_timeout,
        )
        self._stack.push_async_callback(self.caller.close)
        gateway = Gateway(timeout=settings.request_timeout, private=settings.may_request_private)
        self._stack.callback(gateway.close)
        self._settling: Batcher[Settling, Settled] = Batcher(self._settle_batch)
        self.checkpoints: Batcher[Checkpoint, bool] = Batcher(self._store_steps)
        self.metrics = Metrics()
        executor = Executor(
            self.caller,
            gateway,
            self._settle,
            has_backlog=lambda: self.worker.has_backlog,
            is_stopping=lambda: self.worker.is_stopping,
            new_id=self.new_id,
            load_state=self.store.get_state,
            look_back=self.store.look_back,
            is_paused=self.registry.is_paused,
            mover=Mover(self.store, self.registry),
            slugs=lambda: self.registry.functions.invocable,
            retry_interval=settings.retry_interval,
            metrics=self.metrics,
            tracing=self._open_tracing() if settings.is_traced else None,
            secrets=settings.secrets,
        )
        self.worker = Worker(self.store, self.registry, executor, settings)
        self.intake = Intake(
            self.store,
            self.registry,
            self.worker,
            self.new_id,
            patience=settings.patience,
            on_waiting=lambda seconds: self.buffers.due_in(seconds),
        )
        self.buffers = Buffers(self.store, self.registry, self.intake)
        self.relay = Relay(self.store, self.intake, self.owner)
        self.crons = Crons(self.store, self.new_id)
        await self._start_tasks()

    def _open_tracing(self) -> "Tracing":
        from stepbase.engine.tracing import Tracing

        tracing = Tracing()
        self._stack.push_async_callback(asyncio.to_thread, tracing.close)
        return tracing

    async def _start_tasks(self) -> None:
        listener = Listener(
            self.settings.database_url,
            # Between two looks a dead engine's lease must not pass unseen.
            interval=min(self.settings.sweep_seconds, self.settings.lease.total_seconds() / 2),
            on_notify=self._notified,
            on_tick=self._ticked,
            is_idle=lambda: self.relay.is_idle,
        )
        self.failure = asyncio.get_running_loop().create_future()
        ready = asyncio.Event()
        tasks = [self._spawn("listener", listener.run(ready))]
        self._stack.push_async_callback(self._stop_tasks, tasks)
        self.failure.add_done_callback(lambda _: ready.set())
        # Nothing is taken before it is known that we may: the listener finds out whether a relay is here.
        await ready.wait()
        if self.failure.done():
            self.failure.result()
        tasks += [
            self._spawn("worker", self.worker.run()),
            self._spawn("relay", self.relay.run()),
            self._spawn("crons", self.crons.run()),
            self._spawn("buffers", self.buffers.run()),
            self._spawn("sweeper", sweep_forever(self.store, self.settings)),
        ]
        if self.settings.sdk_urls:
            urls, seconds = self.settings.sdk_urls, self.settings.poll_seconds
            apps = Discovery(self.caller, self.registry, urls, seconds)
            tasks.append(self._spawn("discovery", apps.run()))

    def _spawn(self, name: str, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        """A task that ends by itself takes the engine down: a silent half-engine is worse."""
        if (
            task.cancelled()
            or self._stopping
            or self.worker.is_stopping
            or self.failure is None
            or self.failure.done()
        ):
            return
        error = task.exception() or RuntimeError(f"the engine's {task.get_name()} ended")
        self.failure.set_exception(error)

    async def _stop_tasks(self, tasks: "Sequence[asyncio.Task[None]]") -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.failure is not None and not self.failure.done():
            self.failure.cancel()

    async def _settle(self, settling: Settling) -> Settled:
        size = sum(len(step.memo) for step in settling.effects.steps)
        return await retrying(lambda: self._settling.add(settling, size), lambda: self._stopping)

    async def _settle_batch(self, batch: Sequence[Settling]) -> list[Settled]:
        return await failpoint.during("engine.in_settle", self.store.settle(batch))

    async def _store_steps(self, batch: Sequence[Checkpoint]) -> list[bool]:
        stored = await failpoint.during("engine.in_checkpoint", self.store.checkpoint(batch))
        failpoint.hit("engine.after_checkpoint")
        return stored

    def _notified(self, payload: str) -> None:
        if payload == "q":
            self.worker.wake()
        elif payload == "o":
            self.relay.wake()
        elif payload == "b":
            self.buffers.due_in(0)
        elif payload == "c":
            self.crons.wake()
            reload = asyncio.create_task(self._reload())
            self._reloads = reload  # keeps a reference until the next one

    async def _reload(self) -> None:
        try:
            await self.registry.reload()
        except StoreError as error:
            # The epoch in `ingest` will find it out.
            _log.warning("functions not reloaded", extra={"reason": str(error)[:200]})

    def _ticked(self, tick: Tick) -> None:
        self.worker.on_tick(tick)
        self.crons.due_in(tick.cron_seconds)
        if tick.buffer_seconds is not None:
            self.buffers.due_in(tick.buffer_seconds)
        if tick.has_outbox:
            self.relay.wake()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Engine]:
    """Run an engine without its HTTP API, for tests and tools."""
    async with Engine(settings) as engine:
        yield engine
