"""OpenTelemetry spans of what is served, by its conventions for generative AI; no span has what was said.

Without a provider, which `--spans` sets up, they cost next to nothing and go nowhere.
Source: github.com/open-telemetry/semantic-conventions-genai, "client inference", "agent spans", "execute tool".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from dualtune_edge.runtime.agent.events import ApprovalEvent, ArgumentsEvent, DoneEvent, Event, ResultEvent, ToolEvent
from dualtune_edge.runtime.serve.completions import Completion

_PROVIDER: Final = "dualtune-edge"
_TRACER: Final = trace.get_tracer(_PROVIDER)  # a proxy, until a provider is set
_MILLISECOND: Final = 1_000_000  # nanoseconds


@contextlib.contextmanager
def chat_span(completion: Completion, headers: Mapping[str, str]) -> Iterator[None]:
    """A completion; `headers` may name the span that it belongs to."""
    request = completion.request
    attributes = _operation("chat", request.model) | {
        "gen_ai.request.stream": bool(request.stream),
        "gen_ai.request.max_tokens": request.most_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.seed": request.seed,
    }
    span = _TRACER.start_span(
        f"chat {request.model}",
        propagate.extract(headers),
        SpanKind.INTERNAL,
        {name: value for name, value in attributes.items() if value is not None},
    )
    try:
        yield
    finally:
        usage = completion.usage()
        span.set_attributes(
            {
                "gen_ai.response.id": completion.id,
                "gen_ai.response.model": request.model,
                "gen_ai.usage.input_tokens": usage["prompt_tokens"],
                "gen_ai.usage.output_tokens": usage["completion_tokens"],
                "gen_ai.usage.cache_read.input_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            }
        )
        if completion.outcome == "answered":
            span.set_attribute("gen_ai.response.finish_reasons", [completion.finish_reason])
        else:
            _fail(span, completion.outcome)
        span.end()


class TaskSpans:
    """A whole task, and beneath it a span for each decision, each call of a tool, and the answer."""

    def __init__(self, model: str, run: str, headers: Mapping[str, str]) -> None:
        self._model = model
        attributes = _operation("invoke_agent", model) | {"gen_ai.agent.name": model, "gen_ai.conversation.id": run}
        name = f"invoke_agent {model}"
        self._task = _TRACER.start_span(name, propagate.extract(headers), SpanKind.INTERNAL, attributes)
        self._context = trace.set_span_in_context(self._task)
        self._decided = time.time_ns()  # when the latest step had its result
        self._answering = self._denied = False

    def add(self, event: Event) -> None:
        """What happened in the task."""
        if isinstance(event, ArgumentsEvent):
            self._child("chat", event.milliseconds, {"gen_ai.response.finish_reasons": ["tool_calls"]})
        elif isinstance(event, ToolEvent):
            self._answering = event.tool is None
        elif isinstance(event, ApprovalEvent):
            self._denied = event.decision == "deny"
        elif isinstance(event, ResultEvent):
            if not self._denied:
                tool = {"gen_ai.tool.name": event.tool, "gen_ai.tool.type": "function"}
                self._child("execute_tool", event.milliseconds, tool, error="tool_error" if event.error else None)
            self._decided = time.time_ns()
        elif isinstance(event, DoneEvent):
            self._end(event)

    def close(self) -> None:
        """End the task's span, also where its client left."""
        if self._task.is_recording():
            _fail(self._task, "cancelled")
            self._task.end()

    def _end(self, event: DoneEvent) -> None:
        answered = event.outcome == "answered"
        if self._answering:
            milliseconds = (time.time_ns() - self._decided) / _MILLISECOND
            reason = {"gen_ai.response.finish_reasons": ["stop"]} if answered else {}
            self._child("chat", milliseconds, reason, error=None if answered else event.outcome)
        if not answered:
            _fail(self._task, event.outcome)
        self._task.end()

    def _child(
        self, operation: str, milliseconds: float, attributes: Mapping[str, Any], error: str | None = None
    ) -> None:
        """A span that ends now."""
        now = time.time_ns()
        name = attributes.get("gen_ai.tool.name", self._model)
        span = _TRACER.start_span(
            f"{operation} {name}",
            self._context,
            SpanKind.INTERNAL,
            _operation(operation, self._model) | dict(attributes),
            start_time=now - int(milliseconds * _MILLISECOND),
        )
        if error:
            _fail(span, error)
        span.end(now)


def export_spans() -> None:
    """Send spans by OTLP over HTTP to where the variables OTEL_EXPORTER_OTLP_… say; by default to this machine."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - the extra
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):  # OTEL_SERVICE_NAME is not set
        resource = resource.merge(Resource({SERVICE_NAME: _PROVIDER}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _operation(name: str, model: str) -> dict[str, Any]:
    return {"gen_ai.operation.name": name, "gen_ai.provider.name": _PROVIDER, "gen_ai.request.model": model}


def _fail(span: Span, error: str) -> None:
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR))
