"""A chat completion: the agent's call, or its text, in OpenAI's form."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dualtune_edge.runtime.decode.conversation import read_messages
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import AnswerTokens, CallResult
from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.offered import offered
from dualtune_edge.runtime.serve.requests import ChatRequest, NamedTool
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import EdgeError

EXTENSION: Final = "dualtune"  # the key of all that OpenAI's form has no place for
_ANSWER_TOKENS: Final = 1024


@dataclass(frozen=True)
class Piece:
    """A part of an answer: of its text, or its one call."""

    text: str = ""
    call: CallResult | None = None


@dataclass
class Completion:
    """One request on its way through the engine. `outcome`: "answered", the class of an error, or "stopped"."""

    agent: Agent
    request: ChatRequest
    seconds: float | None  # from its arrival, that it may take; None: any number
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    arrived: float = field(default_factory=time.monotonic)
    call: CallResult | None = None
    answer: AnswerTokens | None = None  # of a text that came to its end
    outcome: str = "stopped"
    pieces: list[Piece] = field(default_factory=list)

    def check(self) -> None:
        """Refuse what cannot be answered, before it waits for the engine.

        Raises:
            ApiError: a tool that is not the bundle's.
            RequestError: malformed messages.

        """
        read_messages(self.request.messages)
        self._offered()

    def run(self, cancel: threading.Event) -> Generator[Piece, None, None]:
        """The answer's pieces, as they are made.

        Raises:
            ApiError: a tool that is not the bundle's.
            EdgeError: the request cannot be answered.

        """
        try:
            for piece in self._made(cancel):
                self.pieces.append(piece)
                yield piece
        except (ApiError, EdgeError) as error:
            self.outcome = type(error).__name__
            raise
        self.outcome = "answered"

    def whole(self) -> dict[str, Any]:
        """The response, once `run` has ended."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None, "refusal": None}
        if self.called:
            message["tool_calls"] = [self.tool_call()]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return self._head("chat.completion") | {"choices": [choice], "usage": self.usage()} | self.extension()

    def chunks(self, pieces: Generator[Piece, None, None]) -> Generator[dict[str, Any], None, None]:
        """The same as a stream."""
        yield self._chunk({"role": "assistant", "content": None if self.request.tools else ""})
        with contextlib.closing(pieces):
            yield from self._pieces_as_chunks(pieces)
        yield self._chunk({}, self.finish_reason) | self.extension()
        if self.request.stream_options and self.request.stream_options.include_usage:
            yield self._head("chat.completion.chunk") | {"choices": [], "usage": self.usage()}

    def _pieces_as_chunks(self, pieces: Iterator[Piece]) -> Iterator[dict[str, Any]]:
        for piece in pieces:
            if piece.text:
                yield self._chunk({"content": piece.text})
            elif self.called:
                yield self._chunk({"tool_calls": [{"index": 0, **self.tool_call()}]})

    @property
    def called(self) -> bool:
        """Whether the answer is a call."""
        return self.call is not None and self.call.tool is not None

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def finish_reason(self) -> str:
        """Why the answer ends."""
        if self.called:
            return "tool_calls"
        return "length" if self.answer and not self.answer.ended else "stop"

    def tool_call(self) -> dict[str, Any]:
        """The call as OpenAI has it: the arguments are JSON in a text."""
        assert self.call is not None  # noqa: S101 - `called`
        arguments = json.dumps(self.call.arguments, ensure_ascii=False)
        function = {"name": self.call.tool, "arguments": arguments}
        return {"id": f"call_{self.id.removeprefix('chatcmpl-')}", "type": "function", "function": function}

    def usage(self) -> dict[str, Any]:
        """Tokens of the call's stages and of the text."""
        prompt = cached = written = 0
        if self.call:
            prompt, cached = self.call.tokens.prompt, self.call.tokens.reused
            written = self.call.tokens.decided + self.call.tokens.forced
        if self.answer:
            prompt, cached = prompt + self.answer.prompt, cached + self.answer.reused
            written += self.answer.written
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def extension(self) -> dict[str, Any]:
        """The decision behind the answer; empty where the request has no tools."""
        if self.call is None:
            return {}
        names = {"toolset", "tool", "probability", "alternatives", "toolset_probability", "timings_ms", "notes"}
        return {EXTENSION: self.call.model_dump(mode="json", include=names)}

    def _made(self, cancel: threading.Event) -> Iterator[Piece]:
        request = self.request
        if request.tools and request.tool_choice != "none":
            self.call = self.agent.call(
                request.messages,
                offered=self._offered(),
                required=request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool),
                max_argument_tokens=request.most_tokens or limits.ARGUMENT_TOKENS,
                cancel=cancel,
                deadline=self._left(),
            )
            if self.call.tool is not None:
                yield Piece(call=self.call)
                return
        for text in self._texts(cancel):
            yield Piece(text=text)

    def _texts(self, cancel: threading.Event) -> Generator[str, None, None]:
        request = self.request
        self.answer = yield from self.agent.answer(
            request.messages,
            temperature=request.temperature or 0.0,
            max_tokens=request.most_tokens or _ANSWER_TOKENS,
            seed=request.seed or 0,
            cancel=cancel,
            deadline=self._left(),
        )

    def _left(self) -> float | None:
        """Seconds that it may still take."""
        return None if self.seconds is None else max(0.0, self.arrived + self.seconds - time.monotonic())

    def _offered(self) -> Mapping[str, frozenset[str]]:
        return offered(self.agent.bundle.manifest, self.request.tools or (), self.request.tool_choice)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.request.model}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head("chat.completion.chunk") | {"choices": [choice]}
