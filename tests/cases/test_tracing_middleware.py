"""TracingMiddleware: a span for each call and step, below the span that the request names."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.sdk_calls import call_body, hashed
from tests.support.sdk_hosts import Ask

from stepbase import App, Step, SyncStep
from stepbase.middleware import TracingMiddleware

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
app = App("case", middleware=[TracingMiddleware.factory(provider)])

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def work() -> str:
    with trace.get_tracer("of the user", tracer_provider=provider).start_as_current_span("inner"):
        return "done"


def fail() -> None:
    raise ValueError("broken")


@app.function("async", on="case/start")
async def handler(step: Step) -> str:
    await step.run("one", work)
    await step.run("two", fail)
    raise AssertionError


@app.function("sync", on="case/start")
def sync_handler(step: SyncStep) -> str:
    step.run("one", work)
    step.run("two", fail)
    raise AssertionError


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    exporter.clear()
    yield


async def spans(ask: Ask, kind: str, body: bytes) -> dict[str, ReadableSpan]:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await ask("POST", query=f"fnId=case-{kind}&stepId=step", headers=headers, body=body)
    return {span.name: span for span in exporter.get_finished_spans()}


def parent_of(span: ReadableSpan) -> str:
    assert span.parent is not None
    return format(span.parent.span_id, "016x")


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    assert format(span.context.trace_id, "032x") == TRACE
    return format(span.context.span_id, "016x")


async def test_spans_of_a_call_and_its_step(ask: Ask, kind: str) -> None:
    found = await spans(ask, kind, call_body(attempt=1))

    slug = f"case-{kind}"
    assert set(found) == {slug, "one", "inner"}
    assert parent_of(found[slug]) == PARENT
    assert parent_of(found["one"]) == id_of(found[slug])
    assert parent_of(found["inner"]) == id_of(found["one"])
    assert found[slug].kind is trace.SpanKind.SERVER
    told = found[slug].attributes or {}
    assert (told["stepbase.function"], told["stepbase.attempt"]) == (slug, 1)
    assert told["stepbase.run_id"]
    assert (found["one"].attributes or {})["stepbase.step"] == "one"


async def test_a_failing_step_and_a_replayed_one(ask: Ask, kind: str) -> None:
    found = await spans(ask, kind, call_body(steps={hashed("one"): {"data": "done"}}))

    assert set(found) == {f"case-{kind}", "two"}
    assert found["two"].status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in found["two"].events] == ["exception"]
    assert found[f"case-{kind}"].status.status_code is trace.StatusCode.UNSET


async def test_a_failing_handler(ask: Ask, kind: str) -> None:
    error = {"error": {"name": "ValueError", "message": "broken"}}
    steps = {hashed("one"): {"data": "done"}, hashed("two"): error}
    span = (await spans(ask, kind, call_body(steps=steps)))[f"case-{kind}"]

    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description == "ValueError: broken"
    assert [event.name for event in span.events] == ["exception"]
