"""Spans of the engine, as a collector gets them: a run is one trace, and its function's spans join it."""

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.engine.conftest import StartEngine, serving_app
from tests.support.engine_client import EngineClient
from tests.support.stub_host import Answer, StubHost, ops, step_run

from stepbase import App, Step, config
from stepbase.engine.server import check_address
from stepbase.engine.settings import Settings
from stepbase.middleware import TracingMiddleware
from stepbase.protocol.ids import ulid_number


class Collector:
    """An OTLP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def receive(self, request: web.Request) -> web.Response:
        """Take one export."""
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response()

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name, in order of time."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


def attributes(span: Span) -> dict[str, Any]:
    def value(of: Any) -> Any:
        kind = of.WhichOneof("value")
        return (
            [value(v) for v in of.array_value.values]
            if kind == "array_value"
            else getattr(of, kind)
        )

    return {attribute.key: value(attribute.value) for attribute in span.attributes}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector that engines started by this test send to."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield collector
    await runner.cleanup()


async def run_to_end(client: EngineClient, host: StubHost, *answers: Answer) -> dict[str, Any]:
    """Register a function that gives these answers, run it once, return the run."""
    left = list(answers)
    host.handlers["app-f"] = lambda _: left.pop(0)
    await client.register(host.registration(host.function("app-f", retries=1)))
    [event] = await client.send({"name": "app/f", "data": {}})
    return await client.result(event)


async def test_a_run_is_a_trace_with_a_span_for_each_call(
    collector: Collector, start_engine: StartEngine, host: StubHost
) -> None:
    async with start_engine(is_traced=True) as (client, _):
        run = await run_to_end(
            client, host, ops(step_run("a" * 40, 1)), Answer(500, {"message": "no"}), Answer(body=7)
        )

    [of_run] = collector.named("run app-f")
    calls = collector.named("call app-f")
    trace = ulid_number(run["run_id"]).to_bytes(16, "big")
    assert {span.trace_id for span in (of_run, *calls)} == {trace}
    assert not of_run.parent_span_id
    assert {span.parent_span_id for span in calls} == {of_run.span_id}
    assert [attributes(span)["stepbase.outcome"] for span in calls] == [
        "goes on",
        "sleeps",
        "ended",
    ]
    assert [attributes(span)["stepbase.attempt"] for span in calls] == [0, 0, 1]
    assert attributes(calls[0])["stepbase.steps"] == ["a" * 40]
    assert attributes(of_run) == {
        "stepbase.run_id": run["run_id"],
        "stepbase.function": "app-f",
        "stepbase.status": "Completed",
    }
    assert of_run.start_time_unix_nano <= calls[0].start_time_unix_nano
    assert calls[-1].end_time_unix_nano <= of_run.end_time_unix_nano


async def test_errors_are_on_the_spans(
    collector: Collector, start_engine: StartEngine, host: StubHost
) -> None:
    failure = Answer(400, {"name": "Broken", "message": "for good"}, _no_retry())
    async with start_engine(is_traced=True) as (client, _):
        await run_to_end(client, host, failure)

    [of_run], [call] = collector.named("run app-f"), collector.named("call app-f")
    assert of_run.status.code == call.status.code == 2
    assert "for good" in of_run.status.message


def _no_retry() -> dict[str, str]:
    return {
        "x-inngest-sdk": "stub:v1.0.0",
        "x-inngest-req-version": "2",
        "x-inngest-no-retry": "true",
    }


async def test_spans_of_a_function_join_those_of_its_run(
    collector: Collector, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = App("app", middleware=[TracingMiddleware.factory(provider)], checkpointing=False)

    @app.function("f", on="app/f")
    async def handler(step: Step) -> int:
        return await step.run("one", lambda: 1)

    async with serving_app(app, start_engine, monkeypatch, is_traced=True) as client:
        [event] = await client.send({"name": "app/f", "data": {}})
        await client.result(event)

    calls = collector.named("call app-f")
    theirs = {
        f"{s.parent.span_id:016x}"
        for s in exporter.get_finished_spans()
        if s.parent and s.name == "app-f"
    }
    assert theirs == {span.span_id.hex() for span in calls}


async def test_untraced_runs_leave_the_headers_alone(
    start_engine: StartEngine, host: StubHost
) -> None:
    async with start_engine() as (client, _):
        await run_to_end(client, host, Answer(body=7))

    headers = {name.lower() for name in host.requests[0][0]}
    assert "traceparent" not in headers


async def test_a_run_that_is_not_sampled_is_in_no_part_of_a_trace(
    collector: Collector,
    start_engine: StartEngine,
    host: StubHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    async with start_engine(is_traced=True) as (client, _):
        await run_to_end(client, host, Answer(body=7))

    assert collector.spans == []
    assert dict(host.requests[0][0])["traceparent"].endswith("-00")


def test_spans_that_nothing_installed_can_send_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stepbase.engine.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ValueError, match=r"stepbase\[engine,otel\]"):
        check_address(Settings(database_url="postgres://", is_traced=True))


@pytest.mark.parametrize(
    ("variables", "is_traced"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_opentelemetrys_own_variables_turn_spans_on(
    variables: dict[str, str], is_traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert config.is_traced() is is_traced
