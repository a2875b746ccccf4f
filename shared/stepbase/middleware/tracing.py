"""OpenTelemetry spans of calls and steps; which exporter they go to is the application's business."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stepbase.errors import DefinitionError
from stepbase.sdk.middleware import Input, Middleware, Output, StepInfo
from stepbase.sdk.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


class TracingMiddleware(Middleware):
    """A span for every call, and one inside it for every step that runs; errors are recorded on them.

    ::

        app = App("shop", middleware=[TracingMiddleware])

    The span of a call is a child of the one that the request's `traceparent` header names. Needs the extra
    `otel`, and an OpenTelemetry SDK that the application sets up.

    Args:
        provider: Where tracers come from; the global one if not given.

    Raises:
        DefinitionError: If OpenTelemetry is missing.
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise DefinitionError(
                "TracingMiddleware needs OpenTelemetry: pip install stepbase[otel]"
            ) from error
        self._tracer = trace.get_tracer("stepbase", VERSION, tracer_provider=provider)

    @contextmanager
    def around_call(self) -> Iterator[None]:
        """Open the span of the call."""
        from opentelemetry import propagate, trace

        if self.function is None or self.request is None:
            raise AssertionError("a call has a function and a request")
        with self._tracer.start_as_current_span(
            self.function.slug,
            context=propagate.extract(self.request.headers),
            kind=trace.SpanKind.SERVER,
            attributes={"stepbase.app": self.app.id, "stepbase.function": self.function.slug},
        ) as self._span:
            yield

    def transform_input(self, input: Input) -> None:
        """Say which run it is."""
        self._span.set_attributes(
            {"stepbase.run_id": input.run_id, "stepbase.attempt": input.attempt}
        )

    @contextmanager
    def around_step(self, step: StepInfo) -> Iterator[None]:
        """Open the span of a step."""
        with self._tracer.start_as_current_span(
            step.step_id,
            attributes={"stepbase.step": step.step_id, "stepbase.step_hash": step.hashed},
        ):
            yield

    def transform_output(self, output: Output) -> None:
        """Record how the handler failed."""
        if output.step is None and output.error is not None:
            from opentelemetry.trace import Status, StatusCode

            if isinstance(output.exception, Exception):
                self._span.record_exception(output.exception)
            name, message = output.error.get("name"), output.error.get("message")
            self._span.set_status(Status(StatusCode.ERROR, f"{name}: {message}"))
