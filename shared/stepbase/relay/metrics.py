"""What a relay says of itself to Prometheus; what the database knows is asked for at each scrape."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from stepbase.relay.answer import Outcome

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
_OF_THE_DATABASE = {
    "waiting": ("stepbase_outbox_waiting", "Events that are due, counted up to 100000."),
    "retrying": ("stepbase_outbox_retrying", "Events that wait for their next try."),
    "dead": ("stepbase_outbox_dead", "Events that nobody could take."),
    "lag_s": ("stepbase_outbox_lag_seconds", "How long the oldest due event has waited."),
}


class Metrics:
    """The counters of one relay, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self._registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self._registry)

        self.sent = counter("stepbase_relay_sent", "Events that the receiver accepted.")
        self.failed = counter("stepbase_relay_failed", "Events put off, to be tried again.")
        self.dead = counter("stepbase_relay_dead", "Events given up: dead letters.")
        self._batches = counter("stepbase_relay_batches", "Requests by outcome.", "outcome")
        self._seconds = Histogram(
            "stepbase_relay_post_seconds", "Requests.", buckets=_BUCKETS, registry=self._registry
        )
        self._in_flight = gauge("stepbase_relay_in_flight", "Requests under way.")
        self._troubled = gauge("stepbase_relay_receiver_failures", "Failures in a row, now.")
        self._is_up = gauge("stepbase_database_up", "Whether the database answered.")
        self._of_the_database = {
            key: gauge(name, text) for key, (name, text) in _OF_THE_DATABASE.items()
        }
        for outcome in Outcome:
            self._batches.labels(outcome.value)

    def posted(self, outcome: Outcome, seconds: float) -> None:
        """Count a request."""
        self._batches.labels(outcome.value).inc()
        self._seconds.observe(seconds)

    def render(self, in_flight: int, failures: int, report: Mapping[str, Any] | None) -> bytes:
        """Write everything in Prometheus' text form; `report` is None if the database is away."""
        self._in_flight.set(in_flight)
        self._troubled.set(failures)
        self._is_up.set(report is not None)
        for key, gauge in self._of_the_database.items():
            gauge.set(float(report[key]) if report is not None else float("nan"))
        return generate_latest(self._registry)
