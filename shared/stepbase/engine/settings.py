"""Everything that can be set on an engine, with its default. Values only."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from stepbase.protocol import signing


@dataclass(frozen=True, slots=True)
class Settings:
    """An engine's settings.

    Attributes:
        database_url: Direct connection or session pooler; LISTEN needs a session.
        project: Whose database it must be (its reference, or its URL's host); None: anybody's.
        take_over: Whether to claim a database that belongs to another project.
        host: Address to bind; anything but loopback needs keys.
        port: 0 takes a free one.
        signing_keys: First the key calls are signed with, then those also accepted. Empty: dev mode.
        event_keys: Keys that may send events. Empty: anyone (dev mode).
        retry_interval: Fixed seconds between attempts instead of the schedule (development).
        max_calls: Calls in flight at once.
        lease: How long an item is kept without a sign of life.
        call_timeout: Seconds one call may take.
        drain_seconds: How long the calls in flight may go on once the engine is to stop.
        request_timeout: Seconds a request made for a function may take (step.fetch, step.ai).
        private_requests: Whether such requests may reach private addresses; None: only without keys.
        patience: Seconds an event waits for a database that is away before its sender hears of it.
        sweep_seconds: How often an idle engine looks around (twice a lease, if that is more often).
        keep_runs, keep_failed, keep_events: Ages at which history is deleted.
        keep_results, keep_keys: Ages at which the ledger forgets a call's result, and its key.
        keep_silent: How long a run of another server counts as live without a report (`Monitor`).
        is_traced: Whether spans are sent (where to: OpenTelemetry's own variables).
        sdk_urls: Serve URLs of apps to sync at start, and again every `poll_seconds` (0: at start only).
    """

    database_url: str = field(repr=False)
    project: str | None = None
    take_over: bool = False
    host: str = "127.0.0.1"
    port: int = 8288
    signing_keys: tuple[str, ...] = field(default=(), repr=False)
    event_keys: tuple[str, ...] = field(default=(), repr=False)
    retry_interval: float | None = None
    max_calls: int = 64
    lease: timedelta = timedelta(seconds=30)
    call_timeout: float = 7200.0
    drain_seconds: float = 10.0
    request_timeout: float = 600.0
    private_requests: bool | None = None
    patience: float = 15.0
    sweep_seconds: float = 5.0
    keep_runs: timedelta = timedelta(days=30)
    keep_failed: timedelta = timedelta(days=90)
    keep_events: timedelta = timedelta(days=7)
    keep_results: timedelta = timedelta(days=30)
    keep_keys: timedelta = timedelta(days=400)
    keep_silent: timedelta = timedelta(days=30)
    is_traced: bool = False
    sdk_urls: tuple[str, ...] = ()
    poll_seconds: float = 5.0

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log and no page may show, in every form that the engine has it."""
        found = [*self.signing_keys, *self.event_keys]
        for key in self.signing_keys:
            with suppress(ValueError):  # one that is not hex has no such form
                found.append(signing.hash_key(key))
        password = urlsplit(self.database_url).password
        return tuple(found) if password is None else (*found, password)

    @property
    def is_dev(self) -> bool:
        """True without signing keys: nothing is signed and nothing asked for."""
        return not self.signing_keys

    @property
    def may_request_private(self) -> bool:
        """Whether requests made for functions may reach private addresses."""
        return self.is_dev if self.private_requests is None else self.private_requests

    @property
    def server_kind(self) -> str:
        """The word for this mode on the wire."""
        return "dev" if self.is_dev else "cloud"
