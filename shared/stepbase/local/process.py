"""One process of the stack: started, known to be ready by its own word, and restarted if it dies."""

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from stepbase.local.errors import ChildError
from stepbase.local.watchdog import Watchdog

_READY_SECONDS = 30.0
_GRACE_SECONDS = 6.0
_FIRST_BACKOFF = 0.1
_LAST_BACKOFF = 5.0
# A child that lived so long did not die of how it was started.
_HEALTHY_SECONDS = 2.0
_LAST_WORDS_SECONDS = 0.5
_REMEMBERED_LINES = 20

Sink = Callable[[str, str], None]


class Piece:
    """A child process with a name, and the wish that it should run.

    `command` gets the port to listen on: 0 the first time unless one was asked for, later the one
    it had, so that its address stays the same. `sink` receives (name, line) of what it prints and
    of what happens to it. `on_ready` is called each time the child says that it is ready.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        environment: Mapping[str, str],
        watchdog: Watchdog,
        sink: Sink,
        *,
        port: int = 0,
        supervise: bool = True,
        on_ready: Callable[[Mapping[str, object]], None] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.restarts = 0
        self._command = command
        self._environment = dict(environment)
        self._watchdog = watchdog
        self._sink = sink
        self._supervise = supervise
        self._on_ready = on_ready
        self._wanted = False
        self._ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ChildError: it is not running.
        """
        if not self.running:
            raise ChildError(f"{self.name} is not running")
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    @property
    def is_ready(self) -> bool:
        """Whether it is alive and has said that it is ready."""
        return self.running and self._ready.is_set()

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ChildError: it ended before, or took too long; with the last lines it printed.
        """
        if self._wanted:
            return
        self._wanted = True
        try:
            exited = await self._spawn()
        except BaseException:
            self._wanted = False
            raise
        self._keeper = asyncio.create_task(self._keep(exited))

    async def stop(self) -> None:
        """Ask the process to end and wait for it; one that does not listen is killed."""
        self._wanted = False
        if self.running:
            assert self._process is not None
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._sink(self.name, f"does not end, killing it (pid {self._process.pid})")
                self._signal(signal.SIGKILL)
        await self._end_keeper()

    async def kill(self) -> None:
        """Kill the process as a crash would; a supervised one comes back by itself."""
        self._ready.clear()
        process = self._process
        if process is not None:
            self._signal(signal.SIGKILL)
            await process.wait()

    async def abandon(self) -> None:
        """Kill the process and do not bring it back."""
        self._wanted = False
        self._signal(signal.SIGKILL)
        await self._end_keeper()

    async def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Wait until the process is ready, after a restart for instance.

        Raises:
            ChildError: not within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            raise ChildError(
                f"{self.name} is not ready after {seconds:g} s: {self._tail()}"
            ) from None

    def set_environment(self, **changes: str) -> None:
        """Change variables for the next start."""
        self._environment.update(changes)

    # -- inside ----------------------------------------------------------------------------------

    async def _spawn(self) -> "asyncio.Task[int]":
        """Start the process, wait until it is ready, return the task that waits for its end."""
        self._ready.clear()
        self._lines.clear()
        outputs = [await _Output.open(take) for take in (self._on_stdout, self._on_line)]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=outputs[0].end,
                stderr=outputs[1].end,
                env=self._environment,
                # Ctrl-C in a terminal reaches a whole process group; the stack stops in its order.
                start_new_session=True,
            )
        finally:
            for output in outputs:
                os.close(output.end)
        self._process = process
        self._watchdog.guard(process.pid)
        exited = asyncio.create_task(self._follow(process, outputs))
        try:
            await self._wait_first_ready(exited)
        except BaseException:
            self._signal(signal.SIGKILL)
            await asyncio.wait({exited})
            raise
        return exited

    async def _wait_first_ready(self, exited: "asyncio.Task[int]") -> None:
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {exited, waiting}, timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if waiting.done() and not waiting.cancelled():
            return  # if it has died since, its keeper will see to that
        if exited.done():
            raise ChildError(f"{self.name} ended at once: {self._tail()}")
        if not self._ready.is_set():
            raise ChildError(f"{self.name} is not ready after {_READY_SECONDS:g} s: {self._tail()}")

    async def _follow(
        self, process: asyncio.subprocess.Process, outputs: "Sequence[_Output]"
    ) -> int:
        """Pass on what the process prints until it ends; return its exit code."""
        code = await process.wait()
        self._ready.clear()
        # Its last words; a process it left behind may hold the pipes for ever.
        await asyncio.wait({output.pump for output in outputs}, timeout=_LAST_WORDS_SECONDS)
        for output in outputs:
            await output.close()
        self._watchdog.release(process.pid)
        self._ready.clear()
        return code

    async def _keep(self, exited: "asyncio.Task[int]") -> None:
        """Start the process again whenever it ends unasked, more slowly if it keeps dying."""
        loop = asyncio.get_running_loop()
        backoff = _FIRST_BACKOFF
        while True:
            born = loop.time()
            code = await exited
            if not self._wanted:
                return
            self._sink(self.name, f"died ({describe(code)})")
            if not self._supervise:
                return
            backoff = _FIRST_BACKOFF if loop.time() - born > _HEALTHY_SECONDS else backoff
            while True:
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LAST_BACKOFF)
                try:
                    exited = await self._spawn()
                except ChildError as error:
                    self._sink(self.name, str(error))
                else:
                    break
            self.restarts += 1
            assert self._process is not None  # though it may be dead again by now
            self._sink(self.name, f"restarted (pid {self._process.pid})")

    async def _end_keeper(self) -> None:
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        done, _ = await asyncio.wait({keeper}, timeout=1)
        if not done:
            # It is between two lives.
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            self._signal(signal.SIGKILL)
            if self._process is not None:
                await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _on_stdout(self, line: str) -> None:
        """Take the line `{"ready": name, "port": N}`; anything else is output."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not (isinstance(message, dict) and message.get("ready") == self.name):
            self._on_line(line)
            return
        self.port = int(message["port"])
        self._ready.set()
        if self._on_ready is not None:
            self._on_ready(message)

    def _on_line(self, line: str) -> None:
        if line.strip():
            self._lines.append(line)
            self._sink(self.name, line)

    def _tail(self) -> str:
        return " | ".join(self._lines) or "it printed nothing"


class _Output:
    """One of a child's outputs: a pipe of our own, because asyncio's `wait` waits for its pipes."""

    def __init__(
        self, end: int, transport: asyncio.ReadTransport, pump: "asyncio.Task[None]"
    ) -> None:
        self.end = end
        self.pump = pump
        self._transport = transport

    @classmethod
    async def open(cls, take: Callable[[str], None]) -> "_Output":
        """Return a pipe whose lines go to `take`; `end` is for the child, to be closed here."""
        read, write = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
        )
        return cls(write, transport, asyncio.create_task(_pump(reader, take)))

    async def close(self) -> None:
        """Stop reading."""
        self.pump.cancel()
        await asyncio.wait({self.pump})
        self._transport.close()


async def _pump(stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
    rest = b""
    while chunk := await stream.read(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            take(line.decode(errors="replace"))
    if rest:
        take(rest.decode(errors="replace"))


def describe(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
