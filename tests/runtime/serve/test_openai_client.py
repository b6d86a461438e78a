"""The openai package, unchanged, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

READ = {
    "type": "function",
    "function": {
        "name": "read",
        "description": "Read a file",
        "parameters": {
            "properties": {"path": {"type": "string", "maxLength": 8}, "lines": {"type": "integer", "maximum": 99}},
            "required": ["path"],
        },
    },
}
SORT = {"type": "function", "function": {"name": "sort"}}
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def model(running: Any) -> str:
    name: str = running.service.model
    return name


@pytest.fixture
def client(running: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_model_is_the_bundle(client: openai.OpenAI, model: str) -> None:
    assert [entry.id for entry in client.models.list()] == [model] == [client.models.retrieve(model).id]


def test_a_call_a_result_and_an_answer(client: openai.OpenAI, model: str, running: Any) -> None:
    messages: list[Any] = [*HELLO]
    first = client.chat.completions.create(model=model, messages=messages, tools=[READ, SORT])
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("read", {"path": "größe"})
    assert first.usage
    assert (first.usage.prompt_tokens, first.usage.prompt_tokens_details.cached_tokens) == (40, 30)
    assert first.model_extra
    assert first.model_extra["dualtune"]["toolset"] == "files"
    assert first.model_extra["dualtune"]["probability"] == 0.75
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "text"}]
    second = client.chat.completions.create(model=model, messages=messages, tools=[READ, SORT])
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content == "It is done."
    assert running.agent.seen[0]["offered"] == {"files": {"read", "sort"}}


def test_a_streamed_call(client: openai.OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(
        model=model, messages=HELLO, tools=[SORT], stream=True, stream_options=options
    )
    chunks = list(stream)
    (call,) = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert call.function
    assert call.function.name == "sort"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == "tool_calls"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 5


def test_a_streamed_text(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
    text = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
    assert text == ["It is ", "done."]


@pytest.mark.parametrize(
    ("choice", "offered", "required"),
    [
        ("auto", {"read", "sort"}, False),
        ("required", {"read", "sort"}, True),
        ({"type": "function", "function": {"name": "sort"}}, {"sort"}, True),
    ],
)
def test_tool_choice(choice: Any, offered: set[str], required: Any, client: openai.OpenAI, running: Any) -> None:
    model = running.service.model
    client.chat.completions.create(model=model, messages=HELLO, tools=[READ, SORT], tool_choice=choice)
    assert running.agent.seen[0]["offered"] == {"files": offered}
    assert running.agent.seen[0]["required"] is required


def test_tool_choice_none_is_text(client: openai.OpenAI, model: str) -> None:
    found = client.chat.completions.create(model=model, messages=HELLO, tools=[READ], tool_choice="none")
    assert found.choices[0].message.content == "It is done."


def test_settings_of_the_text_arrive(client: openai.OpenAI, model: str, running: Any) -> None:
    client.chat.completions.create(model=model, messages=HELLO, temperature=0.5, max_completion_tokens=7, seed=3)
    asked = running.agent.seen[0]
    assert (asked["temperature"], asked["max_tokens"], asked["seed"]) == (0.5, 7, 3)


def refused(call: Callable[[], object]) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as error:
        call()
    return error.value


@pytest.mark.parametrize(
    ("settings", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "unsupported_parameter"),
        ({"stop": ["x"]}, "stop", "unsupported_parameter"),
        ({"top_p": 0.5}, "top_p", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"extra_body": {"min_p": 0.1}}, "min_p", "unknown_parameter"),
        ({"temperature": 3}, "temperature", None),
        ({"tools": [{"type": "function", "function": {"name": "rm"}}]}, "tools[0].function.name", "unknown_tool"),
        (
            {"tools": [{"type": "function", "function": {"name": "sort", "parameters": {"type": "object"}}}]},
            "tools[0].function.parameters",
            "unknown_tool",
        ),
        ({"tools": [SORT], "tool_choice": {"type": "function", "function": {"name": "read"}}}, "tool_choice", None),
    ],
)
def test_what_is_not_served_is_refused_by_its_parameter(
    settings: dict[str, Any], param: str, code: str | None, client: openai.OpenAI, model: str
) -> None:
    error = refused(lambda: client.chat.completions.create(model=model, messages=HELLO, **settings))
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == (param, code)


def test_values_that_change_nothing_are_accepted(client: openai.OpenAI, model: str) -> None:
    settings: dict[str, Any] = {"n": 1, "top_p": 1, "stop": None, "logprobs": False, "user": "me", "store": False}
    assert client.chat.completions.create(model=model, messages=HELLO, **settings).choices


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    error = refused(lambda: client.chat.completions.create(model="gpt", messages=HELLO))
    assert isinstance(error, openai.NotFoundError)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_request_is_a_400_streamed_or_not(stream: Any, client: openai.OpenAI, model: str) -> None:
    messages: Any = [{"role": "user", "content": "fail"}]
    error = refused(lambda: client.chat.completions.create(model=model, messages=messages, stream=stream))
    assert isinstance(error, openai.BadRequestError)
    assert "Shorten it." in error.message
