"""The whole local stack as one object: Postgres, gateway, function host and engine.

`stepbase dev`, the demo, the crash benchmark and tests all run this. Pieces can be killed and
restarted one by one; addresses stay the same. Whatever way this process ends, its children end too.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from stepbase import config
from stepbase.config import SupabaseConfig
from stepbase.local import elsewhere, migrate, syncing
from stepbase.local.errors import ChildError, DatabaseAwayError, LocalError, PortTakenError
from stepbase.local.gateway.auth import Keys
from stepbase.local.host import SERVE_PATH
from stepbase.local.postgres import Cluster
from stepbase.local.process import Piece, Sink
from stepbase.local.serving import listen
from stepbase.local.watchdog import Watchdog

_COMMAND = (sys.executable, "-P", "-c", "from stepbase.cli.main import main; main()")
_BESIDE_SUPABASE = (
    "If it is `supabase start`: set DATABASE_URL, SUPABASE_URL and SUPABASE_SECRET_KEY to what "
    "`supabase status` shows, and its database and API are used"
)
_POSTGRES_CHECK_SECONDS = 0.5
# What the pieces are told replaces what the developer's own shell says.
_REPLACED = ("INNGEST_", "SUPABASE_", "DATABASE_URL", "STEPBASE_LISTEN_FD")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        functions: The folder with the function folders.
        database_url: A database to use; None starts a cluster of our own.
        api: A Supabase API in front of that database to use; None starts a gateway of our own.
        data: Where the cluster and the keys are kept; None makes everything throwaway.
        durable: False lets our own cluster lose data in a machine crash (tests).
        settings: Server settings for our own cluster.
        preload: Its shared_preload_libraries.
        database_port: Its TCP port, 0 for a free one; None for a unix socket only.
        gateway_port, host_port, engine_port: 0 takes a free one.
        migrations: SQL files by name; None takes the framework's and those of `project`.
        seed: Run once, on a database that had no migrations, when the apps are synced.
        project: Where the developer's own `supabase/migrations` are.
        reload: Whether the host starts anew when files change.
        watched: Further folders whose changes count.
        supervise: Whether pieces that die come back.
        engine_arguments: Further arguments of `stepbase engine`.
        environment: Variables for every piece.
        environments: Variables for single pieces, by name.
    """

    functions: Path = Path("functions")
    database_url: str | None = field(default=None, repr=False)
    api: SupabaseConfig | None = None
    data: Path | None = None
    durable: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    preload: Sequence[str] = ()
    database_port: int | None = None
    gateway_port: int = 0
    host_port: int = 0
    engine_port: int = 0
    migrations: Mapping[str, str] | None = field(default=None, repr=False)
    seed: Path | None = None
    project: Path = Path()
    reload: bool = False
    watched: Sequence[Path] = ()
    supervise: bool = True
    engine_arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)


class Stack:
    """The running stack; use as an async context manager, or `start` and `stop`.

    `sink` receives (piece, line) for everything worth a line on a terminal.
    """

    def __init__(self, plan: Plan, sink: Sink = lambda name, line: None) -> None:
        self.plan = plan
        self.cluster: Cluster | None = None
        self.pieces: dict[str, Piece] = {}
        self._sink = sink
        self._database_url = plan.database_url
        self._keys: Keys | None = None
        self._apps: list[str] = []
        self._others: list[str] = []
        self._watchdog = Watchdog()
        self._temporary: Path | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Start everything; if that fails, nothing is left running."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything."""
        await self.stop()

    # -- where things are ------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        """The database's connection string, as its owner."""
        if self._database_url is None:
            raise LocalError("the stack has no database yet: start it first")
        return self._database_url

    @property
    def keys(self) -> Keys:
        """The API keys of the gateway."""
        if self._keys is None:
            raise LocalError("the stack has no keys yet: start it first")
        return self._keys

    @property
    def gateway_url(self) -> str:
        """What SUPABASE_URL is."""
        return self.plan.api.url if self.plan.api else self._url("gateway")

    @property
    def host_url(self) -> str:
        """Where the function folders are served."""
        return self._url("host")

    @property
    def engine_url(self) -> str:
        """What INNGEST_BASE_URL is."""
        return self._url("engine")

    @property
    def apps(self) -> list[str]:
        """The function folders the host serves."""
        return list(self._apps)

    @property
    def others(self) -> list[str]:
        """The function folders without an app, which the host serves too."""
        return list(self._others)

    def folder_url(self, folder: str) -> str:
        """Return where a function folder is, with or without an app."""
        return f"{self.host_url}/{folder}"

    def serve_url(self, app: str) -> str:
        """Return the serve URL of a function folder."""
        return f"{self.folder_url(app)}{SERVE_PATH}"

    def client_environment(self) -> dict[str, str]:
        """Return the variables that point an app or a function at this stack."""
        ours = {
            "SUPABASE_URL": self.gateway_url,
            "SUPABASE_SECRET_KEY": self.keys.secret,
            "SUPABASE_PUBLISHABLE_KEY": self.keys.publishable,
            "SUPABASE_JWT_SECRET": self.keys.jwt_secret,
        }
        return {
            **(elsewhere.variables() if self.plan.api else ours),
            "DATABASE_URL": self.database_url,
            "INNGEST_DEV": self.engine_url,
            "INNGEST_BASE_URL": self.engine_url,
        }

    # -- the life of the stack -------------------------------------------------------------------

    async def start(self) -> None:
        """Start every piece in order and sync the apps.

        Raises:
            LocalError: what could not be started and why; call `stop` then.
        """
        self._check_ports()
        await self.start_database()
        try:
            async with asyncio.TaskGroup() as starting:
                starting.create_task(self._start_api())
                starting.create_task(self._start_engine())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        # Functions are told the engine's address; the engine learns theirs when they are synced.
        await self._start_host()
        try:
            await self.sync()
        except ChildError as error:
            if not self.plan.reload:
                raise
            self._tell_refused(error)  # it is being written
        await self._seed()

    async def stop(self) -> None:
        """Stop every piece in reverse order and remove what is throwaway."""
        for task in self._tasks:
            task.cancel()
        for name in ("engine", "host", "gateway"):
            if name in self.pieces:
                await self.pieces[name].stop()
        await self._stop_database()

    async def abandon(self) -> None:
        """Kill every piece at once; for the second Ctrl-C."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(piece.abandon() for piece in self.pieces.values()))
        await self._stop_database()

    async def kill(self, name: str) -> None:
        """Kill a piece by SIGKILL; if the stack is supervised it comes back by itself."""
        await self.pieces[name].kill()

    async def restart(self, name: str) -> None:
        """Stop a piece and start it again; returns when it is ready."""
        await self.pieces[name].stop()
        await self.pieces[name].start()

    async def restart_postgres(self, *, immediate: bool = False) -> None:
        """Restart our own cluster; `immediate` is a crash.

        Raises:
            LocalError: the database is not ours.
        """
        cluster = self.cluster
        if cluster is None:
            raise LocalError("the database was given by its URL: restarting it is not ours to do")
        await _to_the_end(lambda: cluster.restart(immediate=immediate))

    async def wait_ready(self) -> None:
        """Wait until every piece is ready.

        Raises:
            ChildError: one is not within 30 seconds.
        """
        await asyncio.gather(*(piece.wait_ready() for piece in self.pieces.values()))

    async def sync(self) -> None:
        """Have every app declare its functions to the engine, as a deploy does.

        Raises:
            ChildError: apps or the engine refused, with their answers; the others are synced.
        """
        urls = {app: self.serve_url(app) for app in self._apps}
        await syncing.sync(urls, lambda app: self._sink("sync", app))

    async def start_database(self) -> None:
        """Start Postgres if it is ours, and bring the database up to date.

        Raises:
            LocalError: what failed and where.
        """
        if self.plan.data is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="stepbase-"))
            self._watchdog.guard_folder(self._temporary)
        self._keys = Keys.load(self._home / "keys.json")
        if self.plan.database_url is None:
            await self._start_cluster()
        files = self.plan.migrations
        if files is None:
            files = migrate.read_project(self.plan.project)
        try:
            before = await migrate.status(self.database_url, {})
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseAwayError(
                f"the database cannot be reached: {error}. Is DATABASE_URL (or --database-url) right, "
                "and is the server running? Without it a Postgres of our own is started"
            ) from error
        if before and self.cluster is not None:
            await self._tell_changed(files)
        applied = await migrate.apply_files(self.database_url, files)
        self._sink(
            "migrations", f"{len(applied)} applied, {len(files) - len(applied)} already there"
        )
        if self.plan.seed is not None and not before:
            self._unseeded.touch()

    async def _tell_changed(self, files: Mapping[str, str]) -> None:
        """Say that a database of ours was made by other files: what was applied is not applied again."""
        changed = await migrate.changed(self.database_url, files)
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            self._sink(
                "migrations",
                f"{changed[0]}{more} had another text when applied here; "
                "`stepbase dev --reset` begins with an empty database",
            )

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _unseeded(self) -> Path:
        """Is there while a new database waits for its seed, also over a start that failed."""
        return self._home / "unseeded"

    async def _seed(self) -> None:
        """Seed a new database: now, as the events of its rows find the functions they are for."""
        if self.plan.seed is not None and self._unseeded.exists():
            await migrate.seed(self.database_url, self.plan.seed)
            self._unseeded.unlink()
            self._sink("seed", str(self.plan.seed))

    async def _start_cluster(self) -> None:
        data = self.plan.data
        self.cluster = Cluster(
            data / "postgres" if data else None,
            port=self.plan.database_port,
            durable=self.plan.durable,
            preload=self.plan.preload,
            settings=self.plan.settings,
        )
        await _to_the_end(self.cluster.start)
        self._database_url = self.cluster.dsn()
        self._sink("postgres", f"version {self.cluster.binaries.major} in {self.cluster.home}")
        if self.plan.supervise:
            self._background(self._keep_cluster())

    async def _keep_cluster(self) -> None:
        """Start our server again if it dies unasked."""
        assert self.cluster is not None
        while True:
            await asyncio.sleep(_POSTGRES_CHECK_SECONDS)
            if self.cluster.died:
                self._sink("postgres", "died, starting it again")
                try:
                    await _to_the_end(self.cluster.restart)
                except LocalError as error:
                    self._sink("postgres", str(error))

    async def _stop_database(self) -> None:
        if self.cluster is not None:
            await asyncio.to_thread(self.cluster.close)
            self.cluster = None
        self._watchdog.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def _check_ports(self) -> None:
        for option, port in (
            ("--gateway-port", self.plan.gateway_port),
            ("--host-port", self.plan.host_port),
            ("--engine-port", self.plan.engine_port),
            ("--database-port", self.plan.database_port),
        ):
            given = {"--database-port": self.plan.database_url, "--gateway-port": self.plan.api}
            if not port or given.get(option):
                continue
            try:
                listen("127.0.0.1", port, option).close()
            except PortTakenError as error:
                if option not in given:
                    raise
                raise PortTakenError(f"{error}. {_BESIDE_SUPABASE}") from error

    async def _start_api(self) -> None:
        """Start the gateway, or look at the API that takes its place."""
        if self.plan.api is not None:
            await elsewhere.check(self.plan.api, self.database_url)
            self._sink("gateway", f"not started: SUPABASE_URL is {self.plan.api.url}")
            return
        await self._start_piece(
            "gateway",
            ["--keys", str(self._home / "keys.json")],
            self.plan.gateway_port,
            {"DATABASE_URL": self.database_url},
        )

    async def _start_engine(self) -> None:
        await self._start_piece(
            "engine",
            self.plan.engine_arguments,
            self.plan.engine_port,
            {"DATABASE_URL": self.database_url},
        )

    async def _start_host(self) -> None:
        reloading = ["--reload", *(f"--watch={path}" for path in self.plan.watched)]
        await self._start_piece(
            "host",
            [str(self.plan.functions), *(reloading if self.plan.reload else [])],
            self.plan.host_port,
            self.client_environment(),
        )

    async def _start_piece(
        self, name: str, arguments: Sequence[str], port: int, variables: Mapping[str, str]
    ) -> None:
        inherited = config.environment().items()
        environment = {
            **{key: value for key, value in inherited if not key.startswith(_REPLACED)},
            **variables,
            **self.plan.environment,
            **self.plan.environments.get(name, {}),
        }
        self.pieces[name] = Piece(
            name,
            lambda port: [*_COMMAND, name, *arguments, "--port", str(port)],
            environment,
            self._watchdog,
            self._sink,
            port=port,
            supervise=self.plan.supervise,
            on_ready=self._on_host_ready if name == "host" else None,
        )
        await self.pieces[name].start()
        self._sink(name, f"ready at {self._url(name)}")

    def _on_host_ready(self, message: Mapping[str, object]) -> None:
        """Note the apps; a host that started anew may declare other functions than before."""
        apps = message.get("apps")
        others = message.get("others")
        self._others = [str(other) for other in others] if isinstance(others, list) else []
        first = not self._apps
        self._apps = [str(app) for app in apps] if isinstance(apps, list) else []
        if not first:
            self._background(self._sync_again())

    async def _sync_again(self) -> None:
        try:
            await self.wait_ready()
            await self.sync()
        except ChildError as error:
            self._tell_refused(error)

    def _tell_refused(self, error: ChildError) -> None:
        for line in str(error).splitlines():
            self._sink("sync", line)

    def _background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def _home(self) -> Path:
        home = self.plan.data or self._temporary
        assert home is not None, "set before anything is started"
        return home

    def _url(self, name: str) -> str:
        piece = self.pieces.get(name)
        if piece is None or not piece.port:
            raise LocalError(f"the {name} was not started yet")
        return f"http://127.0.0.1:{piece.port}"


async def _to_the_end(work: Callable[[], None]) -> None:
    """Run `work` in a thread; a cancellation waits for it, so that nothing is left half started."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        running.exception()
        raise
