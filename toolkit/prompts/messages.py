"""A conversation: OpenAI-style messages, as users send them and as trajectories hold them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.frozen import Frozen


class FunctionCall(Frozen):
    """A tool's name and its arguments as a JSON object (OpenAI's JSON text is read too)."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @field_validator("arguments", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return strict_json.loads(value) if isinstance(value, str) else value


class ToolCall(Frozen):
    """One call in an assistant's message."""

    function: FunctionCall
    type: Literal["function"] = "function"
    id: str | None = None


class Message(Frozen):
    """One turn. An assistant's turn holds text, or calls, or both; a tool's turn holds the result of a call."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    weight: Literal[0, 1] | None = None  # OpenAI's fine-tuning files: an assistant's turn of weight 0 is not learnt

    @field_validator("content", mode="before")
    @classmethod
    def _no_content(cls, value: object) -> object:
        return "" if value is None else value  # OpenAI sends null beside tool_calls

    @model_validator(mode="after")
    def _calls_are_the_assistants(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message cannot hold tool_calls")
        return self

    def for_template(self) -> dict[str, Any]:
        """The mapping that Hugging Face chat templates read; absent fields are left out."""
        return self.model_dump(exclude_none=True, exclude={"weight"} if self.tool_calls else {"weight", "tool_calls"})


def user(content: str) -> Message:
    """A user's message."""
    return Message(role="user", content=content)


def call(tool: str, arguments: dict[str, Any] | None = None) -> Message:
    """An assistant's message that calls one tool."""
    function = FunctionCall(name=tool, arguments=arguments or {})
    return Message(role="assistant", tool_calls=(ToolCall(function=function),))
