import functools
import math

import pytest
from pydantic import ValidationError

from dualtune_edge.toolkit.prompts.messages import Message, call, unread, user


def test_openai_messages_are_read() -> None:
    message = Message.model_validate(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}],
        }
    )
    assert message.content == ""
    assert message.tool_calls[0].function.arguments == {"path": "a"}


def test_templates_see_only_what_is_there() -> None:
    assert user("hi").for_template() == {"role": "user", "content": "hi"}
    assert call("read", {"path": "a"}).for_template() == {
        "role": "assistant",
        "content": "",
        "tool_calls": ({"function": {"name": "read", "arguments": {"path": "a"}}, "type": "function"},),
    }


CALLED = {"id": "c", "type": "function", "function": {"name": "water", "arguments": "{}"}}
WATER = call("water").tool_calls[0].model_copy(update={"id": "c"})
# As SDKs, servers and gateways write a message → as it is read.
SENT = {
    "a reply as OpenAI's SDK dumps it": (
        {
            "role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None,
            "function_call": None, "tool_calls": [CALLED],
        },
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "a streamed call": (
        {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **CALLED}]},
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "a gateway's nulls": (
        {"role": "user", "content": "a", "name": None, "provider_specific_fields": None},
        user("a"),
    ),
    "text parts": (
        {"role": "user", "content": [{"type": "text", "text": "Water the "}, {"type": "text", "text": "fern"}]},
        user("Water the fern"),
    ),
    "a part with a mark": (
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        user("a"),
    ),
    "a tool's parts": (
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "ok"}]},
        Message(role="tool", tool_call_id="c", content="ok"),
    ),
    "parts of the responses API": (
        {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        Message(role="assistant", content="a"),
    ),
    "developer": ({"role": "developer", "content": "Be short"}, Message(role="system", content="Be short")),
    "a refusal": (
        {"role": "assistant", "content": None, "refusal": "I will not"},
        Message(role="assistant", content="I will not"),
    ),
    "what a model thought": (
        {"role": "assistant", "content": "a", "tool_calls": None, "reasoning_content": "greeting"},
        Message(role="assistant", content="a", reasoning_content="greeting"),
    ),
    "no arguments as an empty text": (
        {"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "water", "arguments": ""}}]},
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "no arguments as null": (
        {"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "water", "arguments": None}}]},
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "no arguments as null in a text": (
        {"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "water", "arguments": " null "}}]},
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "a call as OpenAI's SDK parses it": (
        {
            "role": "assistant", "parsed": None,
            "tool_calls": [{**CALLED, "function": {**CALLED["function"], "parsed_arguments": None}}],
        },
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "a gateway's fields that hold nothing": (
        {"role": "user", "content": "a", "provider_specific_fields": {"refusal": None, "more": {}}, "details": []},
        user("a"),
    ),
    "a call of no type": (
        {"role": "assistant", "tool_calls": [{"id": "c", "type": None, "function": {"name": "water"}}]},
        Message(role="assistant", tool_calls=(WATER,)),
    ),
    "a tool that said nothing": ({"role": "tool", "content": None}, Message(role="tool")),
}  # fmt: skip


@pytest.mark.parametrize("name", SENT)
def test_a_message_is_read_as_people_have_it(name: str) -> None:
    sent, read = SENT[name]
    assert Message.model_validate(sent) == read


def test_a_template_is_shown_what_the_model_thought() -> None:
    thought = Message.model_validate({"role": "assistant", "content": "a", "reasoning_content": "b", "thinking": None})
    assert thought.for_template() == {"role": "assistant", "content": "a", "reasoning_content": "b"}


def test_what_is_not_read_is_known() -> None:
    cited = {"role": "assistant", "content": "a", "annotations": [{"type": "url_citation"}], "refusal": None}
    assert list(unread(cited)) == ["annotations"]
    assert list(unread({**cited, "annotations": []})) == []
    assert list(unread(user("a"))) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}], "reads images"),
        ([{"type": "input_audio", "input_audio": {}}], "reads sound"),
        ([{"type": "file", "file": {}}], "parts of type 'file'"),
        ([{"type": "text"}], "reads parts"),
        ([3], "reads parts of type None"),
        ([], "a user message says something"),
        (None, "a user message says something"),
        ({"type": "text", "text": "a"}, "string"),
    ],
)
def test_content_that_is_not_text_is_refused(content: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Message.model_validate({"role": "user", "content": content})


@pytest.mark.parametrize(
    "value",
    [
        {"role": "user"},
        {"role": "system", "content": None},
        {"role": "assistant", "content": None, "audio": {"id": "a"}},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "robot", "content": ""},
        {"role": "user", "content": "a", "provider_specific_fields": {"refusal": [None]}},
        {"role": "user", "content": "a", "contents": ""},
        {"role": "user", "content": "hi", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "user", "content": "hi", "weight": 1},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]},
        {"role": "assistant", "tool_calls": [{"type": "code", "function": {"name": "f"}}]},
    ],
)
def test_refuses(value: object) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate(value)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (math.nan, "what JSON can hold"),
        ([-math.inf], "what JSON can hold"),
        ({"a": object()}, "what JSON can hold"),
        (10**5_000, "what JSON can hold"),
        (functools.reduce(lambda inner, _: [inner], range(300), 1), "nesting of at most 64"),
    ],
    ids=["nan", "infinity", "an object", "digits", "depth"],
)
def test_arguments_hold_what_json_does(value: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Message.model_validate(
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": value}}}]}
        )
