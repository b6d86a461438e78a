"""Whole tasks over HTTP: events as they come, approvals by POST, runs that are stopped, and the page's files."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.serve.guard import Guard

OFFER = Offer({"git": frozenset({"log"})}, frozenset(), ())


class Tools:
    """One tool, whose calls are kept."""

    def __init__(self) -> None:
        self.called: list[tuple[str, dict[str, Any]]] = []

    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        return OFFER

    def call(self, _server: str, tool: str, arguments: dict[str, Any], *, cancel: object = None) -> ToolOutcome:
        assert cancel is not None
        self.called.append((tool, arguments))
        return ToolOutcome("two\ncommits")


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def running(start: Callable[..., Any], tools: Tools) -> Any:
    return start(tools=tools, policy=Policy())


def post(url: str, path: str, body: object, method: str = "POST") -> tuple[int, Any]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)
    connection.request(method, path, json.dumps(body).encode())
    response = connection.getresponse()
    text = response.read().decode()
    return response.status, json.loads(text) if text else None


@contextmanager
def events(url: str, body: object) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of a run, one by one as they come."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)
    connection.request("POST", "/v1/agent", json.dumps(body).encode())
    response = connection.getresponse()
    assert response.status == 200, response.read()

    def lines() -> Iterator[tuple[str, Any]]:
        while line := response.readline():
            kind = line.decode().removeprefix("event: ").strip()
            yield kind, json.loads(response.readline().decode().removeprefix("data: "))
            response.readline()

    yield lines()
    connection.close()


@pytest.mark.parametrize(("reply", "called", "decision"), [("once", 1, "allow"), ("no", 0, "deny")])
def test_a_task_waits_for_its_approval(reply: str, called: int, decision: str, running: Any, tools: Tools) -> None:
    seen: list[str] = []
    with events(running.url, {"task": "what changed?"}) as stream:
        kind, run = next(stream)
        assert kind == "run"
        for kind, event in stream:
            seen.append(kind)
            if kind == "approval" and event["decision"] == "ask":
                assert tools.called == []
                while (status := post(running.url, f"/v1/agent/{run['run']}/approvals", {"reply": reply})[0]) == 409:
                    pass  # the event came before the run began to wait
                assert status == 200
            elif kind == "approval":
                assert event["decision"] == decision
    assert seen == [
        "toolset", "tool", "arguments", "approval", "approval", "result", "toolset", "tool", "text", "text", "done",
    ]  # fmt: skip
    assert len(tools.called) == called
    assert post(running.url, f"/v1/agent/{run['run']}/approvals", {"reply": "once"})[0] == 404


def test_a_run_is_stopped_while_it_waits(running: Any, tools: Tools) -> None:
    with events(running.url, {"task": "what changed?"}) as stream:
        _, run = next(stream)
        for kind, event in stream:
            if kind == "approval" and event["decision"] == "ask":
                assert post(running.url, f"/v1/agent/{run['run']}", None, "DELETE")[0] == 204
        assert (kind, event["outcome"]) == ("done", "cancelled")
    assert tools.called == []


def test_a_client_that_leaves_ends_its_run_without_a_call(running: Any, tools: Tools) -> None:
    with events(running.url, {"task": "what changed?"}) as stream:
        _, run = next(stream)
        next(event for kind, event in stream if kind == "approval")
    while post(running.url, f"/v1/agent/{run['run']}/approvals", {"reply": "nonsense"})[0] != 400:
        pass
    while post(running.url, f"/v1/agent/{run['run']}", None, "DELETE")[0] != 404:
        pass
    assert tools.called == []


@pytest.mark.parametrize(
    "body",
    [{}, {"task": ""}, {"task": "a", "messages": [{}]}, {"task": 5}, {"task": "a", "steps": 2}, {"messages": []}, []],
)
def test_a_malformed_task_is_a_400(body: object, running: Any) -> None:
    status, answer = post(running.url, "/v1/agent", body)
    assert status == 400
    assert answer["error"]["message"]


def test_malformed_messages_are_a_400_before_the_stream_begins(running: Any) -> None:
    status, answer = post(running.url, "/v1/agent", {"messages": [{"role": "wizard", "content": "x"}]})
    assert status == 400
    assert "role" in answer["error"]["message"]


def test_the_page_loads_nothing_from_elsewhere(running: Any) -> None:
    place = urlsplit(running.url)
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
        assert (response.status, response.headers.get_content_type()) == (200, kind)
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "://" not in text


def test_with_a_key_there_is_no_page(start: Callable[..., Any], tools: Tools) -> None:
    running = start(tools=tools, policy=Policy(), guard=Guard(key="secret"))
    assert post(running.url, "/", None, "GET")[0] == 404


def test_without_servers_there_is_no_agent(start: Callable[..., Any]) -> None:
    running = start()
    assert post(running.url, "/v1/agent", {"task": "x"})[0] == 404


def test_one_run_too_many_is_told_to_come_back(running: Any) -> None:
    running.service.runs.most = 0
    assert post(running.url, "/v1/agent", {"task": "x"})[0] == 429
    assert threading.active_count() < 100
