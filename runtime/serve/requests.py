"""What a client may ask: OpenAI's chat completions, as far as they are served.

Every parameter that would change an answer is either followed or refused by name; none is passed over.
Source: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import Field, ValidationError

from dualtune_edge.runtime.serve.errors import ApiError, parameter
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import expectation

# Parameters that are not served → the only values that change nothing.
NOT_SERVED: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None,),
    "functions": (None,),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "n": (None, 1),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None,),
    "response_format": (None, {"type": "text"}),
    "stop": (None, []),
    "store": (None, False),
    "top_logprobs": (None, 0),
    "top_p": (None, 1),
    "verbosity": (None,),
    "web_search_options": (None,),
}
Model = TypeVar("Model", bound=Frozen)
_VARIANTS: Final = ("NamedTool", "literal['auto','none','required']")  # pydantic's words in a place, for `ToolChoice`
# Parameters that change no answer: who asks, and how the request is handled elsewhere.
NO_MATTER: Final = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user"})


class RequestedFunction(Frozen):
    """A tool of the request, which names one of the bundle's."""

    name: str = Field(min_length=1, max_length=limits.NAME_CHARS)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class RequestedTool(Frozen):
    """An entry of `tools`."""

    type: Literal["function"]
    function: RequestedFunction


class NamedFunction(Frozen):
    """The name in a `tool_choice`."""

    name: str


class NamedTool(Frozen):
    """A `tool_choice` that names the tool."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Frozen):
    """What a stream holds besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool | None = None  # padding against eavesdroppers, which a loopback has none of


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


class ChatRequest(Frozen):
    """A chat completion that can be served."""

    model: str
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=limits.MESSAGES)]
    tools: tuple[RequestedTool, ...] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None  # one call a turn is always allowed
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of an answer; None: the server's own limit."""
        return self.max_completion_tokens or self.max_tokens


def read_request(body: bytes) -> ChatRequest:
    """Parse and check a request's body.

    Raises:
        ApiError: no JSON, or a parameter that is unknown, malformed or not served; it names the parameter.

    """
    value = read_object(body)
    for name, harmless in NOT_SERVED.items():
        if name in value and not any(_equal(value[name], one) for one in harmless):
            raise ApiError(400, f"{name!r} is not served.", param=name, code="unsupported_parameter")
    served = {name: part for name, part in value.items() if name not in NOT_SERVED and name not in NO_MATTER}
    request = read_model(ChatRequest, served)
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "'stream_options' goes with 'stream' only.", param="stream_options")
    if None not in (request.max_tokens, request.max_completion_tokens) and (
        request.max_tokens != request.max_completion_tokens
    ):
        message = "'max_tokens' is the older name of 'max_completion_tokens', and has another value."
        raise ApiError(400, message, param="max_tokens")
    return request


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds.

    Raises:
        ApiError: it holds none, or one that is too deep.

    """
    try:
        value = strict_json.loads(body)
    except strict_json.JsonError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body is not a JSON object.")
    return value


def read_model(kind: type[Model], value: dict[str, Any]) -> Model:
    """A JSON object as `kind`, without any cast: a number in a text is no number.

    Raises:
        ApiError: it names the parameter that is wrong.

    """
    try:
        return kind.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = parameter([part for part in fault["loc"] if part not in _VARIANTS])
        if fault["type"] == "extra_forbidden":
            raise ApiError(400, f"Unknown parameter: {place!r}.", param=place, code="unknown_parameter") from None
        raise ApiError(400, f"Invalid {place or 'body'!r}: expected {expectation(fault)}.", param=place) from None


def _equal(value: object, other: object) -> bool:
    """Equal as JSON: `true` is no 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
