"""`/v1/agent`: a whole task as server-sent events, and the approvals that it waits for."""

from __future__ import annotations

import json
import queue
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import anyio
from pydantic import Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from dualtune_edge.runtime.agent.approval import PendingCall, Policy, PolicyApprover, Reply
from dualtune_edge.runtime.agent.events import Event
from dualtune_edge.runtime.agent.loop import RunLimits, Toolbox, run
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.serve.engine_queue import ClientGoneError, pieces_in_thread
from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.guard import read_body
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.frozen import Frozen

Asked = TypeVar("Asked", bound=Frozen)
_LOOK: Final = 0.1  # seconds between two looks at whether a waiting run was stopped


class AgentRequest(Frozen):
    """A task, as a text or as a conversation."""

    task: str | None = Field(default=None, min_length=1)
    messages: list[dict[str, Any]] | None = Field(default=None, min_length=1, max_length=limits.MESSAGES)
    max_steps: int = Field(default=16, ge=1, le=100)
    temperature: float = Field(default=0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _one_of_them(self) -> AgentRequest:
        if (self.task is None) == (self.messages is None):
            raise ValueError("either a `task` or `messages`")
        return self


class ApprovalRequest(Frozen):
    """A person's word on the call that a run waits with."""

    reply: Reply


@dataclass
class _Waiting:
    """A run, and the reply that it waits for."""

    cancel: threading.Event = field(default_factory=threading.Event)
    replies: queue.Queue[Reply] = field(default_factory=lambda: queue.Queue(1))
    asked: bool = False

    def prompt(self, _call: PendingCall) -> Reply:
        """Wait for the reply; a run that is stopped gets a no."""
        self.asked = True
        try:
            while not self.cancel.is_set():
                try:
                    return self.replies.get(timeout=_LOOK)
                except queue.Empty:
                    continue
            return "no"
        finally:
            self.asked = False


@dataclass
class AgentRoute:
    """The runs of one server. `most`: how many there may be at once."""

    agent: Agent
    tools: Toolbox
    policy: Policy
    most: int = 4
    _runs: dict[str, _Waiting] = field(default_factory=dict)

    async def begin(self, request: Request) -> Response:
        """Begin a run; its events are the response."""
        asked = _read(AgentRequest, await read_body(request))
        if len(self._runs) >= self.most:
            raise ApiError(429, "Too many tasks are under way.", retry_after=5)
        waiting, name = _Waiting(), uuid.uuid4().hex
        events = run(
            self.agent,
            asked.task if asked.task is not None else asked.messages or [],
            self.tools,
            PolicyApprover(self.policy, waiting.prompt),
            limits=RunLimits(steps=asked.max_steps),
            temperature=asked.temperature,
            cancel=waiting.cancel,
        )
        self._runs[name] = waiting
        return StreamingResponse(
            self._stream(name, waiting, (event for event in events), request.is_disconnected),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )

    async def approve(self, request: Request) -> Response:
        """Answer the question that a run waits with."""
        reply = _read(ApprovalRequest, await read_body(request)).reply
        waiting = self._runs.get(request.path_params["run"])
        if waiting is None:
            raise ApiError(404, "No such run; it may have ended.")
        if not waiting.asked:
            raise ApiError(409, "The run waits for no approval.")
        try:
            waiting.replies.put_nowait(reply)
        except queue.Full:
            raise ApiError(409, "The approval was answered already.") from None
        return JSONResponse({"reply": reply})

    async def stop(self, request: Request) -> Response:
        """Stop a run where it is."""
        waiting = self._runs.get(request.path_params["run"])
        if waiting is None:
            raise ApiError(404, "No such run; it may have ended.")
        waiting.cancel.set()
        return Response(status_code=204)

    async def _stream(
        self, name: str, waiting: _Waiting, events: Generator[Event, None, None], gone: Callable[..., Any]
    ) -> AsyncIterator[bytes]:
        pieces = pieces_in_thread(events, waiting.cancel, gone)
        try:
            yield f"event: run\ndata: {json.dumps({'run': name})}\n\n".encode()
            async for event in pieces:
                yield f"event: {event.event}\ndata: {event.model_dump_json()}\n\n".encode()
        except ClientGoneError:
            return
        finally:
            waiting.cancel.set()
            del self._runs[name]
            with anyio.CancelScope(shield=True):
                await pieces.aclose()


def _read(kind: type[Asked], body: bytes) -> Asked:
    try:
        return kind.model_validate(strict_json.loads(body))
    except strict_json.JsonError as error:
        raise ApiError(400, f"The body is not JSON: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or None
        raise ApiError(400, f"Invalid {place or 'body'!r}: {fault['msg']}.", param=place) from None
