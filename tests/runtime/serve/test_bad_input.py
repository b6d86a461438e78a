"""What a client may send wrongly: an honest status, and OpenAI's error object with the place that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from dualtune_edge.runtime.serve.guard import BODY_BYTES
from dualtune_edge.runtime.serve.requests import NO_MATTER, NOT_SERVED, ChatRequest

HELLO = {"role": "user", "content": "hello"}
SORT = {"type": "function", "function": {"name": "sort"}}
CALL = {"id": "c", "type": "function", "function": {"name": "sort", "arguments": "{}"}}


def asked(running: Any, **settings: object) -> requests.Response:
    body = {"model": running.service.model, "messages": [HELLO], **settings}
    return requests.post(f"{running.url}/v1/chat/completions", data=json.dumps(body), timeout=30)


def refused(response: requests.Response) -> tuple[int, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    return response.status_code, error["param"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (None, "messages"),
        ("hello", "messages"),
        ({"role": "user"}, "messages"),
        (["hello"], "messages[0]"),
        ([[]], "messages[0]"),
        ([{**HELLO, "role": "wizard"}], "messages[0].role"),
        ([{**HELLO, "role": None}], "messages[0].role"),
        ([{"content": "hello"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0]"),
        ([HELLO, {**HELLO, "content": 5}], "messages[1].content"),
        ([{**HELLO, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content"),
        ([{**HELLO, "content": [{"type": "input_audio"}]}], "messages[0].content"),
        ([{**HELLO, "content": [{"type": "file"}]}], "messages[0].content"),
        ([{**HELLO, "content": [{"type": "text", "text": 5}]}], "messages[0].content"),
        ([{**HELLO, "content": [5]}], "messages[0].content"),
        ([{**HELLO, "spell": 1}], "messages[0].spell"),
        ([{**HELLO, "tool_calls": [CALL]}], "messages[0]"),
        ([{"role": "assistant", "content": "hello"}], None),
        ([HELLO, {"role": "tool", "tool_call_id": "c", "content": "x"}], "messages[1]"),
        ([HELLO, {"role": "assistant", "tool_calls": 5}, HELLO], "messages[1].tool_calls"),
        (
            [
                HELLO,
                {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "x", "arguments": "{"}}]},
                HELLO,
            ],
            "messages[1].tool_calls[0].function.arguments",
        ),
        ([{"role": "function", "name": "sort", "content": "x"}], "messages[0].role"),
    ],
)
def test_messages(messages: Any, param: str | None, running: Any) -> None:
    assert refused(asked(running, messages=messages)) == (400, param)
    assert running.agent.seen == []


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"n": "1"}, "n"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 0}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_p": 0.9}, "top_p"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"stop": "x"}, "stop"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": []}, "functions"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"top_k": 5}, "top_k"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"what": 1}}, "stream_options.what"),
        ({"model": None}, "model"),
        ({"model": ["bundle"]}, "model"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [SORT, {"type": "function", "function": {"name": "sort", "spell": 1}}]}, "tools[1].function.spell"),
        ({"tools": {"sort": SORT}}, "tools"),
        ({"tools": [SORT], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [SORT], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [SORT], "tool_choice": {"type": "function", "function": {"name": "log"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": {"type": "function", "function": {"name": "sort"}}}, "tool_choice"),
    ],
)
def test_parameters(settings: dict[str, Any], param: str, running: Any) -> None:
    assert refused(asked(running, **settings)) == (400, param)
    assert running.agent.seen == []


ANY = (None, True, 5, 1.5, "x", [], {}, [[]], [{}], ["x"], {"x": [{}]})
MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "annotations", "reasoning_content", "x")
CHOICE = ("type", "function", "x")


def test_any_value_anywhere_has_an_honest_status(running: Any) -> None:
    """A value of another type is a 400, wherever it stands, and never this side's error."""
    names = [*ChatRequest.model_fields, *NOT_SERVED, *NO_MATTER]
    bodies = [{name: value} for name in names for value in ANY]
    bodies += [{"messages": [{**HELLO, name: value}]} for name in MESSAGE for value in ANY]
    bodies += [{"messages": [HELLO, {"role": "assistant", "tool_calls": [{**CALL, name: value}]}, HELLO]}
               for name in ("id", *CHOICE) for value in ANY]  # fmt: skip
    bodies += [{"tools": [{**SORT, name: value}]} for name in CHOICE for value in ANY]
    bodies += [{"tools": [SORT], "tool_choice": {**SORT, name: value}} for name in CHOICE for value in ANY]
    bodies += [{"tools": [{**SORT, "function": {"name": "sort", "parameters": value}}]} for value in ANY]
    with requests.Session() as session:
        for body in bodies:
            whole = {"model": running.service.model, "messages": [HELLO], **body}
            response = session.post(f"{running.url}/v1/chat/completions", json=whole, timeout=30)
            assert response.status_code in {200, 400, 404}, body


@pytest.mark.parametrize("levels", [64, 5_000])
def test_too_deep(levels: int, running: Any) -> None:
    value = "[" * levels + "]" * levels
    body = f'{{"model": "x", "messages": [{value}]}}'
    assert refused(requests.post(f"{running.url}/v1/chat/completions", data=body, timeout=30)) == (400, None)


def test_too_large_in_chunks(running: Any) -> None:
    chunks = (b" " * 100_000 for _ in range(BODY_BYTES // 100_000 + 2))
    assert refused(requests.post(f"{running.url}/v1/chat/completions", data=chunks, timeout=30)) == (413, None)


def test_a_seed_below_zero_and_ints_for_floats_are_numbers(running: Any) -> None:
    assert asked(running, seed=-1, temperature=1).status_code == 200
    assert running.agent.seen[0]["seed"] == -1


def test_the_most_tokens_hold_for_arguments_and_text(running: Any) -> None:
    asked(running, tools=[SORT], max_tokens=9)
    assert running.agent.seen[0]["max_argument_tokens"] == 9
    assert asked(running, max_completion_tokens=2).json()["choices"][0]["finish_reason"] == "length"
    assert asked(running, max_tokens=3, max_completion_tokens=3).json()["choices"][0]["finish_reason"] == "stop"


def test_a_call_that_is_no_tool_here_may_stand_in_the_history(running: Any) -> None:
    call = {**CALL, "function": {"name": "elsewhere", "arguments": "{}"}}
    history = [HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x"}]}
    assert asked(running, messages=[*history, result]).status_code == 200
