"""What an engine says of itself to Prometheus.

Counted here is what happens in this process. What the database knows (queue, outbox, snapshots) is
asked for at each scrape and is the same from every engine: nothing is measured while nobody looks.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from stepbase.engine.effects import Settlement, Verdict

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# From a call on the same machine to one that takes minutes.
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_OF_THE_DATABASE = {
    "ready": ("stepbase_queue_ready", "Items that wait for an engine, counted up to 100000."),
    "in_lanes": ("stepbase_queue_in_lanes", "Items that wait for their turn under a limit."),
    "leased": ("stepbase_queue_leased", "Items that an engine works on."),
    "overdue": ("stepbase_queue_overdue", "Timers and lost leases that no engine took up yet."),
    "queue_rows": ("stepbase_queue_rows", "All items with the sleeping ones, as estimated."),
    "oldest_due_s": ("stepbase_queue_oldest_due_seconds", "How late the oldest due item is."),
    "oldest_ready_s": (
        "stepbase_queue_oldest_ready_run_seconds",
        "Age of the oldest run that waits for an engine.",
    ),
    "outbox_rows": ("stepbase_outbox_rows", "Events on their way out, counted up to 100000."),
    "outbox_dead": ("stepbase_outbox_dead", "Events that nobody could take."),
    "outbox_lag_s": ("stepbase_outbox_lag_seconds", "How long the oldest due event has waited."),
    "snapshot_s": (
        "stepbase_oldest_snapshot_seconds",
        "Age of the oldest transaction that keeps dead rows from being cleaned away.",
    ),
}


class Metrics:
    """The counters of one engine, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls_of: dict[str, Histogram] = {}
        self._calls = Histogram(
            "stepbase_call_seconds",
            "Calls of functions.",
            ["function"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._retries = Counter(
            "stepbase_retries",
            "Items put off to be tried again; cause outage: without using up an attempt.",
            ["function", "cause"],
            registry=self._registry,
        )
        self._ended = Counter(
            "stepbase_runs_ended",
            "Runs that ended with a call of this engine.",
            ["function", "status"],
            registry=self._registry,
        )
        self._losses = Counter(
            "stepbase_lease_losses",
            "Replies thrown away because the lease was gone.",
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "stepbase_calls_in_flight", "Items this engine works on now.", registry=self._registry
        )
        self._is_up = Gauge(
            "stepbase_database_up", "Whether the database answered.", registry=self._registry
        )
        self._of_the_database = {
            key: Gauge(name, text, registry=self._registry)
            for key, (name, text) in _OF_THE_DATABASE.items()
        }

    def called(self, function: str, seconds: float) -> None:
        """Count a call."""
        child = self._calls_of.get(function)
        if child is None:
            child = self._calls_of[function] = self._calls.labels(function)
        child.observe(seconds)

    def lost(self) -> None:
        """Count a reply that came too late."""
        self._losses.inc()

    def settled(self, function: str, effects: Settlement) -> None:
        """Count what a call led to."""
        if effects.verdict is Verdict.END and effects.status is not None:
            self._ended.labels(function, effects.status).inc()
        elif effects.verdict is Verdict.TIMER and (effects.failed or effects.is_outage):
            cause = "outage" if effects.is_outage else "attempt"
            self._retries.labels(function, cause).inc()

    def render(self, in_flight: int, measured: Mapping[str, float | None] | None) -> bytes:
        """Write everything in Prometheus' text form; `measured` is None if the database is away."""
        self._in_flight.set(in_flight)
        self._is_up.set(measured is not None)
        for key, gauge in self._of_the_database.items():
            value = measured.get(key) if measured is not None else None
            # Nothing due, or not to be known while the database is away.
            gauge.set(value if value is not None else 0 if measured is not None else float("nan"))
        return generate_latest(self._registry)
