"""Everything that can be set on a relay, with its default. Values only."""

from dataclasses import dataclass, field
from datetime import timedelta

from stepbase.protocol import names


@dataclass(frozen=True, slots=True)
class Settings:
    """A relay's settings.

    Attributes:
        database_url: Direct connection or session pooler; LISTEN needs a session.
        event_origin: Base URL of the event API, without a trailing slash.
        event_key: The last part of the URL that events are posted to; a secret.
        project: On whose behalf this relay works: the project's reference, or its URL's host.
        take_over: Whether to claim an outbox that belongs to another project.
        env: The environment (branch) of the server that is meant, or None.
        batch_events, batch_bytes: What one request holds at most. 1 MiB, because proxies refuse more by
            default, and because it is what a relay holds in memory for each request in flight.
        in_flight: Requests under way at once.
        lease: How long a leased event is kept from other relays; renewed by nobody.
        timeout: Seconds one request may take.
        most_tries, most_age: An event that the receiver never took becomes a dead letter when it was tried
            so often and is that old, both. A week, so that an outage over a long weekend loses nothing.
        poll: Seconds between two looks of a relay that sleeps; NOTIFY wakes it earlier.
        drain_seconds: How long requests under way may go on after SIGTERM.
        host, metrics_port: Where `/health` and `/metrics` are served; port None: nowhere, 0: a free one.
    """

    database_url: str = field(repr=False)
    event_origin: str
    event_key: str = field(repr=False)
    project: str
    take_over: bool = False
    env: str | None = None
    batch_events: int = 500
    batch_bytes: int = 1024 * 1024
    in_flight: int = 4
    lease: timedelta = timedelta(seconds=60)
    timeout: float = 20.0
    most_tries: int = 20
    most_age: timedelta = timedelta(days=7)
    poll: float = 10.0
    drain_seconds: float = 25.0
    host: str = "127.0.0.1"
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: The message names the setting.
        """
        if not self.project:
            raise ValueError("a relay needs the name of the project it works for")
        if not 1 <= self.batch_events <= names.MAX_EVENTS_PER_REQUEST:
            raise ValueError(
                f"a request holds 1 to {names.MAX_EVENTS_PER_REQUEST} events, not {self.batch_events}"
            )
        if not 0 < self.timeout < self.lease.total_seconds():
            raise ValueError(
                f"a lease ({self.lease.total_seconds():g} s) must last longer than a request may take "
                f"({self.timeout:g} s): others would send the same events meanwhile"
            )
        if self.in_flight < 1 or self.batch_bytes < 1 or self.most_tries < 1 or self.poll <= 0:
            raise ValueError("in_flight, batch_bytes, most_tries and poll must be positive")

    @property
    def url(self) -> str:
        """What events are posted to; secret, for the key is in it."""
        return f"{self.event_origin}/e/{self.event_key}"

    def without_key(self, text: str) -> str:
        """Return text from elsewhere with the key taken out of it."""
        return text if len(self.event_key) < 4 else text.replace(self.event_key, "<event key>")
