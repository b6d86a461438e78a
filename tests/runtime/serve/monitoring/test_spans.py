"""OpenTelemetry's spans of completions and whole tasks, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.serve.monitoring import spans

PRIVATE = "my word"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Tools:
    """A tool that fails on demand."""

    failing = False

    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        return Offer({"git": frozenset({"log"})}, frozenset(), ())

    def call(self, *_: object, **__: object) -> ToolOutcome:
        return ToolOutcome(PRIVATE, error=self.failing)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_TRACER", provider.get_tracer("test"))
    return exporter


def finished(exporter: InMemorySpanExporter, running: Any) -> list[Any]:
    """The spans in the order of their ends; the last one ends after the response was read."""
    while running.service.queue.length or (running.service.runs and running.service.runs._runs):
        pass
    return list(exporter.get_finished_spans())


def chat(running: Any, text: str, **settings: object) -> requests.Response:
    body = {"model": running.service.model, "messages": [{"role": "user", "content": text}], **settings}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    return requests.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_a_chat_span_without_contents(
    stream: Any, running: Any, exporter: InMemorySpanExporter
) -> None:
    tool = [{"type": "function", "function": {"name": "log"}}]
    chat(running, PRIVATE, tools=tool, temperature=0.5, seed=3, max_tokens=7, stream=stream)
    (span,) = finished(exporter, running)
    model = running.service.model
    assert span.name == f"chat {model}"
    attributes = dict(span.attributes)
    assert attributes.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "dualtune-edge",
        "gen_ai.request.model": model,
        "gen_ai.request.stream": stream,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.response.model": model,
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 30,
    }
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert PRIVATE not in span.to_json()


def test_a_completion_that_fails_says_how(running: Any, exporter: InMemorySpanExporter) -> None:
    assert chat(running, "fail").status_code == 400
    (span,) = finished(exporter, running)
    assert span.attributes["error.type"] == "RequestError"
    assert span.status.status_code.name == "ERROR"
    assert "gen_ai.response.finish_reasons" not in span.attributes


@pytest.mark.parametrize(("failing", "error"), [(False, None), (True, "tool_error")])
def test_a_task_has_its_steps_beneath_it(
    failing: Any, error: str | None, start: Callable[..., Any], exporter: InMemorySpanExporter
) -> None:
    tools = Tools()
    tools.failing = failing
    running = start(tools=tools, policy=Policy(default="allow"))
    requests.post(f"{running.url}/v1/agent", json={"task": PRIVATE}, timeout=30)
    decision, call, answer, task = finished(exporter, running)
    model = running.service.model
    assert [span.name for span in (decision, call, answer, task)] == [
        f"chat {model}", "execute_tool log", f"chat {model}", f"invoke_agent {model}",
    ]  # fmt: skip
    assert {span.parent.span_id for span in (decision, call, answer)} == {task.context.span_id}
    assert all(span.start_time <= span.end_time for span in (decision, call, answer, task))
    assert (call.attributes["gen_ai.tool.name"], call.attributes.get("error.type")) == ("log", error)
    assert task.status.status_code.name == "UNSET"
    assert all(PRIVATE not in span.to_json() for span in (decision, call, answer, task))


def test_a_call_that_is_denied_is_no_call(start: Callable[..., Any], exporter: InMemorySpanExporter) -> None:
    running = start(tools=Tools(), policy=Policy(default="deny"))
    requests.post(f"{running.url}/v1/agent", json={"task": "x"}, timeout=30)
    assert "execute_tool log" not in [span.name for span in finished(exporter, running)]


def test_a_task_whose_client_leaves_ends_as_cancelled(
    start: Callable[..., Any], exporter: InMemorySpanExporter
) -> None:
    running = start(tools=Tools(), policy=Policy())
    with requests.post(f"{running.url}/v1/agent", json={"task": "x"}, stream=True, timeout=30) as response:
        assert next(response.iter_lines())
    task = finished(exporter, running)[-1]
    assert (task.name, task.attributes["error.type"]) == (f"invoke_agent {running.service.model}", "cancelled")
