"""A line of JSON for each answer, task and error; what was said stands in it only if it is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.serve.monitoring.log import CallLog

PRIVATE = "my word"


class Tools:
    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        return Offer({"git": frozenset({"log"})}, frozenset(), ())

    def call(self, *_: object, **__: object) -> ToolOutcome:
        return ToolOutcome(PRIVATE)


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


@pytest.mark.parametrize("contents", [False, True])
def test_what_was_said_is_logged_only_if_it_is_asked_for(
    contents: Any, start: Callable[..., Any], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    running = start(log=CallLog(contents=contents), tools=Tools(), policy=Policy(default="allow"))
    running.agent.words = (PRIVATE,)
    body = {"model": running.service.model, "messages": [{"role": "user", "content": PRIVATE}]}
    tool = [{"type": "function", "function": {"name": "log"}}]
    chat = f"{running.url}/v1/chat/completions"
    assert requests.post(chat, json=body | {"tools": tool}, timeout=30).status_code == 200
    assert requests.post(chat, json=body | {"stream": True}, timeout=30).status_code == 200
    assert requests.post(chat, json=body | {PRIVATE: 1}, timeout=30).status_code == 400
    assert "done" in requests.post(f"{running.url}/v1/agent", json={"task": PRIVATE}, timeout=30).text
    while running.service.runs._runs:
        pass  # its line is written behind the response
    call, text, refused, task = lines()
    assert (call["event"], call["toolset"], call["tool"], call["outcome"]) == ("completion", "git", "log", "answered")
    assert (text["event"], text["tool"], text["prompt_tokens"], text["completion_tokens"]) == (
        "completion",
        None,
        12,
        1,
    )
    assert (refused["event"], refused["status"], refused["code"]) == ("error", 400, "unknown_parameter")
    assert (task["event"], task["outcome"], task["steps"]) == ("task", "answered", 1)
    for line in (text, task) if contents else (call, text, task):
        assert (PRIVATE in json.dumps(line)) is contents


def test_a_call_that_failed_has_a_line_too(
    start: Callable[..., Any], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    running = start(log=CallLog())
    body = {"model": running.service.model, "messages": [{"role": "user", "content": "fail"}]}
    assert requests.post(f"{running.url}/v1/chat/completions", json=body, timeout=30).status_code == 400
    completion, error = lines()
    assert (completion["event"], completion["outcome"]) == ("completion", "RequestError")
    assert (error["event"], error["status"], error["code"]) == ("error", 400, "RequestError")
