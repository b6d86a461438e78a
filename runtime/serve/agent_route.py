"""`/v1/agent`: a whole task as server-sent events, and the approvals that it waits for."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dualtune_edge.runtime.agent.approval import PendingCall, Policy, PolicyApprover, Reply
from dualtune_edge.runtime.agent.events import DoneEvent, Event
from dualtune_edge.runtime.agent.loop import RunLimits, run
from dualtune_edge.runtime.agent.toolbox import Toolbox
from dualtune_edge.runtime.serve.current_agent import CurrentAgent
from dualtune_edge.runtime.serve.engine_queue import ClientGoneError, pieces_in_thread
from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.event_stream import EventStream, server_sent
from dualtune_edge.runtime.serve.guard import read_body
from dualtune_edge.runtime.serve.monitoring.log import CallLog
from dualtune_edge.runtime.serve.monitoring.spans import TaskSpans
from dualtune_edge.runtime.serve.requests import read_model, read_object
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.frozen import Frozen

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

    agents: CurrentAgent
    tools: Toolbox
    policy: Policy
    log: CallLog = field(default_factory=CallLog)
    most: int = 4
    _runs: dict[str, _Waiting] = field(default_factory=dict)

    async def begin(self, request: Request) -> Response:
        """Begin a run; its events are the response."""
        asked = read_model(AgentRequest, read_object(await read_body(request)))
        if len(self._runs) >= self.most:
            raise ApiError(429, "Too many tasks are under way.", retry_after=5)
        waiting, name = _Waiting(), uuid.uuid4().hex
        async with contextlib.AsyncExitStack() as stack:
            agent = stack.enter_context(self.agents.lease())
            events = run(
                agent,
                asked.task if asked.task is not None else asked.messages or [],
                self.tools,
                PolicyApprover(self.policy, waiting.prompt),
                limits=RunLimits(steps=asked.max_steps),
                temperature=asked.temperature,
                cancel=waiting.cancel,
            )
            spans = TaskSpans(self.agents.name, name, request.headers)
            seen = stack.enter_context(self._recorded(name, waiting, spans))
            pieces = pieces_in_thread((event for event in events), waiting.cancel, request.is_disconnected)
            stack.push_async_callback(pieces.aclose)
            return EventStream(self._stream(name, pieces, seen, spans), stack.pop_all())

    async def approve(self, request: Request) -> Response:
        """Answer the question that a run waits with."""
        reply = read_model(ApprovalRequest, read_object(await read_body(request))).reply
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

    @contextlib.contextmanager
    def _recorded(self, name: str, waiting: _Waiting, spans: TaskSpans) -> Iterator[list[DoneEvent]]:
        """The run is known, and stopped when its response ends. The list gets its last event."""
        self._runs[name] = waiting
        start, last = time.monotonic(), list[DoneEvent]()
        try:
            yield last
        finally:
            waiting.cancel.set()
            spans.close()
            self.log.done(name, last[0] if last else None, time.monotonic() - start)
            del self._runs[name]

    async def _stream(
        self, name: str, pieces: AsyncGenerator[Event, None], last: list[DoneEvent], spans: TaskSpans
    ) -> AsyncIterator[bytes]:
        try:
            yield server_sent({"run": name}, "run")
            async for event in pieces:
                spans.add(event)
                if isinstance(event, DoneEvent):
                    last.append(event)
                yield server_sent(event.model_dump_json(), event.event)
        except ClientGoneError:
            return
