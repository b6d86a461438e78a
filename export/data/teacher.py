"""The teacher: a model behind an OpenAI-compatible endpoint, and what it costs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import openai

from dualtune_edge.toolkit.errors import EngineError, RequestError
from dualtune_edge.toolkit.frozen import Frozen

_RETRIES: Final = 5  # of the openai package: lost connections, timeouts, HTTP 408, 409, 429 and 5xx
_REFUSED: Final = frozenset({400, 413, 422})  # this one request


class Usage(Frozen):
    """Requests, and the tokens that the endpoint counts of them; an endpoint that counts none: 0."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            requests=self.requests + other.requests,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Prices(Frozen):
    """Of a million tokens, in any currency."""

    prompt: float
    completion: float

    def cost(self, usage: Usage) -> float:
        """What the usage costs."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class WantedCall:
    """A call that the teacher wants: its arguments are the text that it wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """One completion."""

    content: str
    calls: tuple[WantedCall, ...]
    usage: Usage


class Teacher(Protocol):
    """Answers a conversation. `draw` names the request: equal ones draw the same, where an endpoint takes a seed."""

    def complete(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], draw: str) -> Reply:
        """The model's next message."""


class EndpointTeacher:
    """A teacher behind `chat/completions`.

    Args:
        url: of the API, as `https://…/v1`; `$OPENAI_API_KEY` is its key.
        model: its name there.
        temperature: None: the endpoint's own.
        seeded: whether to send a `seed`; some endpoints refuse the field.

    """

    def __init__(self, url: str, model: str, *, temperature: float | None, seeded: bool) -> None:
        self._url, self._model, self._temperature, self._seeded = url, model, temperature, seeded
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._client = openai.OpenAI(base_url=url, api_key=key, max_retries=_RETRIES)

    def complete(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], draw: str) -> Reply:
        """The model's next message.

        Raises:
            RequestError: the endpoint refuses this request.
            EngineError: it cannot be reached, fails, or answers in another form than OpenAI's.

        """
        body: dict[str, Any] = {"model": self._model, "messages": list(messages)}
        if tools:
            body["tools"] = list(tools)
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if self._seeded:
            body["seed"] = int.from_bytes(hashlib.sha256(draw.encode()).digest()[:4], "big") >> 1
        try:
            answer = self._client.chat.completions.create(**body)
        except openai.APIStatusError as error:
            kind = RequestError if error.status_code in _REFUSED else EngineError
            found = f"HTTP {error.status_code}: {error.message}"[:500]
            raise kind(
                self._url, found=found, expected="an answer", fix="Check the model, the key and docs/data.md."
            ) from None
        except (openai.OpenAIError, ValueError) as error:
            raise self._unusable(str(error)) from None
        try:
            message = answer.choices[0].message
            calls = tuple(
                WantedCall(call.id, call.function.name, call.function.arguments)
                for call in message.tool_calls or ()
                if call.type == "function"
            )
        except (AttributeError, IndexError, TypeError) as error:
            raise self._unusable(f"an answer without a message ({error})") from None
        return Reply(message.content or "", calls, _usage(answer.usage))

    def _unusable(self, found: str) -> EngineError:
        return EngineError(
            self._url, found=found[:500], expected="an OpenAI-compatible endpoint", fix="Check the address."
        )


def _usage(counts: Any) -> Usage:
    if counts is None:
        return Usage(requests=1)
    return Usage(requests=1, prompt_tokens=counts.prompt_tokens or 0, completion_tokens=counts.completion_tokens or 0)
