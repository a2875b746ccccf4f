"""OpenTelemetry: a run is a trace, and each call of its function a span that the function's spans join.

The trace's id is the run's ULID (both are 128 bits), and the id of the run's own span follows from it:
so engines that never speak to each other write one trace, and whoever has a run's id finds it.
Imported only by an engine that is told where to send spans to.
"""

import json
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from hashlib import sha256

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stepbase.engine.effects import Settlement, Verdict
from stepbase.engine.item import Item
from stepbase.protocol.ids import ulid_number

_OUTCOMES = {
    Verdict.CONTINUE: "goes on",
    Verdict.READY: "goes on later",
    Verdict.YIELD: "goes on later",
    Verdict.TIMER: "sleeps",
    Verdict.PARK: "waits",
    Verdict.DONE: "step done",
    Verdict.END: "ended",
}
_MAX_MESSAGE = 300


class _Ids(RandomIdGenerator):
    """Random ids, but for the span of a run."""

    def __init__(self) -> None:
        self.run: SpanContext | None = None

    def generate_trace_id(self) -> int:
        """Return the id of a trace that starts."""
        return self.run.trace_id if self.run else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Return the id of a span that starts."""
        return self.run.span_id if self.run else super().generate_span_id()


class Tracing:
    """Writes the spans of one engine.

    Endpoint, headers, sampling and the name of the service are OpenTelemetry's own `OTEL_…` variables.
    """

    def __init__(self) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            id_generator=self._ids,
            resource=Resource.create({SERVICE_NAME: "stepbase-engine"}).merge(Resource.create()),
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("stepbase.engine")
        self._w3c = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what is left; blocks for as long as the exporter's timeout."""
        self._provider.shutdown()

    @contextmanager
    def call(self, item: Item, headers: MutableMapping[str, str]) -> Iterator[Span]:
        """Keep the span of a call open, and name it in the headers that the function will see."""
        run = set_span_in_context(NonRecordingSpan(self._run(item.run_id)), Context())
        span = self._tracer.start_span(
            f"call {item.function.config.slug}",
            run,
            SpanKind.CLIENT,
            {**_attributes(item), "stepbase.attempt": item.attempt, "stepbase.job": item.job},
        )
        self._w3c.inject(headers, set_span_in_context(span, Context()))
        try:
            yield span
        finally:
            span.end()

    def decided(self, span: Span, effects: Settlement) -> None:
        """Note on the span of a call what came of it."""
        span.set_attribute("stepbase.outcome", _OUTCOMES[effects.verdict])
        if effects.steps:
            span.set_attribute("stepbase.steps", [step.name for step in effects.steps])
        if effects.is_outage:
            span.set_status(Status(StatusCode.ERROR, "the function's host does not answer"))
        elif effects.failed is not None:
            span.set_status(Status(StatusCode.ERROR, _message(effects.failed.error)))

    def ended(self, item: Item, effects: Settlement) -> None:
        """Write the span of a run whose end has been stored."""
        self._ids.run = self._run(item.run_id)
        try:
            span = self._tracer.start_span(
                f"run {item.function.config.slug}",
                Context(),
                SpanKind.CONSUMER,
                {**_attributes(item), "stepbase.status": effects.status or ""},
                start_time=item.created_ms * 1_000_000,
            )
        finally:
            self._ids.run = None
        if effects.status == "Failed":
            span.set_status(Status(StatusCode.ERROR, _message(effects.error or "")))
        span.end()

    def _run(self, run_id: str) -> SpanContext:
        trace_id = ulid_number(run_id)
        span_id = int.from_bytes(sha256(run_id.encode()).digest()[:8], "big")
        # Asked here and not per call: a run is in the trace with all of its calls, or not at all.
        decision = self._provider.sampler.should_sample(Context(), trace_id, "run").decision
        is_sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def _attributes(item: Item) -> dict[str, str]:
    config = item.function.config
    return {"stepbase.run_id": item.run_id, "stepbase.function": config.slug}


def _message(error: str) -> str:
    """Return "name: message" of a stored error, cut."""
    try:
        found = json.loads(error)
        text = f"{found['name']}: {found['message']}"
    except (ValueError, KeyError, TypeError):
        text = error
    return text[:_MAX_MESSAGE]
