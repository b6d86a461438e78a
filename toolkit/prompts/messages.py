"""A conversation: OpenAI-style messages, as SDKs and servers write them and as trajectories hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.frozen import Frozen

_TEXTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}  # of content parts
_KINDS: Final = {"image": "images", "input_image": "images", "image_url": "images", "input_audio": "sound"}
_UNREAD: Final = ("annotations",)  # about a text that is read: the places that it cites


class FunctionCall(Frozen):
    """A tool's name and its arguments as a JSON object. OpenAI's JSON text is read too; an empty one: no arguments."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _as_it_is_sent(cls, value: object) -> object:
        return _said(value, cls) if isinstance(value, Mapping) else value

    @field_validator("arguments", mode="wrap")
    @classmethod
    def _read(cls, value: object, is_object: ValidatorFunctionWrapHandler) -> dict[str, Any]:
        if value is None or (isinstance(value, str) and not value.strip()):
            return {}
        arguments: dict[str, Any] = is_object(_parsed(value) if isinstance(value, str) else value)
        if isinstance(value, str):
            return arguments  # of a JSON text, whose depth is checked as it is parsed
        try:
            json.dumps(arguments, allow_nan=False)
            deep = strict_json.depth(arguments) > limits.JSON_DEPTH
        except (TypeError, ValueError, RecursionError) as error:
            raise PydanticCustomError("arguments", "what JSON can hold: {reason}", {"reason": str(error)}) from None
        if deep:
            raise PydanticCustomError("arguments", "nesting of at most {depth}", {"depth": limits.JSON_DEPTH})
        return arguments


class ToolCall(Frozen):
    """One call in an assistant's message."""

    function: FunctionCall
    type: Literal["function"] = "function"
    id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_is_sent(cls, value: object) -> object:
        """Without what is null, and without the number by which a stream joins its pieces."""
        if not isinstance(value, Mapping):
            return value
        return {key: item for key, item in _said(value, cls).items() if key != "index"}


class Message(Frozen):
    """One turn. An assistant's turn holds text, or calls, or both; a tool's turn holds the result of a call.

    What a model thought before it answered stands under one of three names; templates that know it show it.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    weight: Literal[0, 1] | None = None  # OpenAI's fine-tuning files: an assistant's turn of weight 0 is not learnt

    @model_validator(mode="before")
    @classmethod
    def _as_it_is_sent(cls, value: object) -> object:
        """With OpenAI's role `developer` as `system`, and without what is null or not read."""
        if not isinstance(value, Mapping):
            return value
        words = {key: item for key, item in _said(value, cls).items() if key not in _UNREAD}
        if words.get("role") == "developer":
            words["role"] = "system"
        refusal = words.pop("refusal", None)
        if refusal is not None:
            words.setdefault("content", refusal)  # what the assistant says in place of an answer
        if words.get("role") in ("system", "user") and words.get("content") in (None, []):
            raise PydanticCustomError("content", "content: a {role} message says something", {"role": words["role"]})
        return words

    @field_validator("content", mode="before")
    @classmethod
    def _from_parts(cls, value: object) -> object:
        return "".join(map(_text, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value

    @model_validator(mode="after")
    def _calls_are_the_assistants(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message cannot hold tool_calls")
        if self.weight is not None and self.role != "assistant":
            raise ValueError(f"a {self.role} message is not learnt, and has no weight")
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


def unread(message: object) -> Iterator[str]:
    """The keys of a message, as it was sent, that say something and are not read."""
    if isinstance(message, Mapping):
        yield from (key for key in _UNREAD if message.get(key))


def _parsed(text: str) -> object:
    """The arguments of a JSON text; `null` stands for none."""
    try:
        arguments = strict_json.loads(text)
    except strict_json.JsonError as error:
        raise PydanticCustomError("arguments", "a JSON object: {reason}", {"reason": str(error)}) from None
    return {} if arguments is None else arguments


def _said(value: Mapping[str, Any], model: type[Frozen]) -> dict[str, Any]:
    """The keys of an object, as it was sent, that are not null, and those unknown here that hold anything."""
    known = model.model_fields
    return {key: item for key, item in value.items() if item is not None and (key in known or _holds(item))}


def _holds(value: object) -> bool:
    """Whether a value is more than empty lists, empty objects and nulls, which SDKs write for what is absent."""
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    return value is not None and value != []


def _text(part: object) -> str:
    """The text of one content part."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get(_TEXTS.get(str(kind), "")) if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        what = _KINDS.get(str(kind), f"parts of type {kind!r}")
        raise PydanticCustomError("part", "parts of type 'text': no model here reads {what}", {"what": what})
    return text
