import pytest
from pydantic import ValidationError

from dualtune_edge.toolkit.prompts.messages import Message, call, user


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


@pytest.mark.parametrize(
    "value",
    [
        {"role": "robot", "content": ""},
        {"role": "user", "content": "hi", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "user", "content": "hi", "weight": 1},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
        {"role": "assistant", "tool_calls": [{"type": "code", "function": {"name": "f"}}]},
    ],
)
def test_refuses(value: object) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate(value)
