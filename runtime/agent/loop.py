"""The loop: a task in, events out, until no tool is needed and the answer is written.

It knows nothing of files, processes or people: a `Toolbox` runs tools, an `Approver` speaks for the user.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dualtune_edge.runtime.agent.approval import Approval, Approver, PendingCall, Rule
from dualtune_edge.runtime.agent.events import (
    ApprovalEvent,
    ArgumentsEvent,
    DoneEvent,
    Event,
    Outcome,
    ResultEvent,
    TextEvent,
    ToolEvent,
    ToolsetEvent,
)
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.toolbox import Toolbox
from dualtune_edge.runtime.agent.transcript import extended
from dualtune_edge.runtime.decode.conversation import read_messages
from dualtune_edge.runtime.decode.overflow import shorten
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.errors import EdgeError
from dualtune_edge.toolkit.prompts.messages import Message

_RESULT_SHARE: Final = 4  # a result takes at most a fourth of the context


@dataclass(frozen=True)
class RunLimits:
    """What ends a run. `repeats`: equal calls with equal results in a row. `seconds`: of the whole run."""

    steps: int = 16
    repeats: int = 3
    seconds: float | None = None
    result_tokens: int | None = None  # of one result; None: a fourth of the context
    answer_tokens: int = 1024


def run(
    agent: Agent,
    task: str | Sequence[Message | Mapping[str, Any]],
    tools: Toolbox,
    approver: Approver,
    *,
    limits: RunLimits | None = None,
    temperature: float = 0.0,
    cancel: threading.Event | None = None,
) -> Iterator[Event]:
    """Work on a task, one call a step.

    The last event is a `DoneEvent`, whatever happens on the way.

    Args:
        agent: the opened bundle.
        task: what the user wants, or the conversation so far.
        tools: runs the calls.
        approver: decides which calls are made.
        limits: what ends the run.
        temperature: of the answer; 0 takes the most probable token.
        cancel: set it to stop the run, from any thread.

    Raises:
        RequestError: the task is malformed.

    """
    messages = read_messages(task)
    return _Run(
        agent, tools, approver, limits or RunLimits(), temperature, cancel or threading.Event(), messages
    ).events()


async def run_async(events: Iterator[Event]) -> AsyncIterator[Event]:
    """The events of a `run` for asyncio: each step is made in a thread."""
    while (event := await asyncio.to_thread(next, events, None)) is not None:
        yield event


@dataclass
class _Run:
    agent: Agent
    tools: Toolbox
    approver: Approver
    limits: RunLimits
    temperature: float
    cancel: threading.Event
    messages: tuple[Message, ...]
    steps: int = 0
    answer: str = ""
    start: float = field(default_factory=time.monotonic)
    latest: tuple[object, ...] = ()  # the latest call with its result
    times: int = 0  # how often it came in a row

    def events(self) -> Iterator[Event]:
        try:
            outcome, reason = yield from self._work()
        except EdgeError as error:
            outcome, reason = self._stopped() or ("failed", str(error))
        seconds = round(time.monotonic() - self.start, 3)
        yield DoneEvent(outcome=outcome, answer=self.answer, steps=self.steps, reason=reason, seconds=seconds)

    def is_set(self) -> bool:
        """Whether to stop, for what waits for a server: the user's word, or the deadline."""
        return self._stopped() is not None

    def _work(self) -> Generator[Event, None, tuple[Outcome, str]]:
        while True:
            if stopped := self._stopped():
                return stopped
            offer = self.tools.offer(self.agent.bundle.manifest, cancel=self)
            if stopped := self._stopped():  # then it is not all that the servers have
                return stopped
            call = (yield from self._decided(offer)) if offer.tools else None
            if call is None:
                break
            if self.steps == self.limits.steps:
                return "steps", f"{self.steps} calls were made, and another one was wanted"
            self.steps += 1
            outcome = yield from self._called(call)
            if self._repeated(call, outcome):
                return "repeated", f"{call.server}.{call.tool} was called {self.times} times with the same result"
        yield from self._answered()
        return self._stopped() or ("answered", "")

    def _decided(self, offer: Offer) -> Generator[Event, None, PendingCall | None]:
        """The next call; None: no tool is needed."""
        step, start = self.steps + 1, time.perf_counter()
        result = self.agent.call(self.messages, offered=offer.tools, cancel=self.cancel, deadline=self._left())
        yield ToolsetEvent(step=step, toolset=result.toolset, probability=result.toolset_probability)
        yield ToolEvent(
            step=step,
            toolset=result.toolset,
            tool=result.tool,
            probability=result.probability,
            alternatives=result.alternatives,
        )
        if result.tool is None:
            return None
        arguments = dict(result.arguments or {})
        if self.steps < self.limits.steps:
            yield self._said(
                ArgumentsEvent(
                    step=step,
                    toolset=result.toolset,
                    tool=result.tool,
                    arguments=arguments,
                    milliseconds=_milliseconds_since(start),
                )
            )
        return PendingCall(result.toolset, result.tool, arguments, (result.toolset, result.tool) in offer.read_only)

    def _called(self, call: PendingCall) -> Generator[Event, None, ToolOutcome]:
        """Approve and run one call; its result is in the conversation afterwards."""
        rule, reason = self.approver.rule(call)
        approval = Approval(rule == "allow", reason)
        if rule == "ask":
            yield self._approval_event(call, "ask", reason)
            approval = self.approver.ask(call)
        yield self._approval_event(call, "allow" if approval.allowed else "deny", approval.reason)
        start = time.perf_counter()
        stopped = self._stopped()  # while the user was asked
        why = approval.reason if not approval.allowed else stopped[1] if stopped else ""
        outcome = (
            ToolOutcome(f"error: the call was not made: {why}", error=True)
            if why
            else self.tools.call(call.server, call.tool, call.arguments, cancel=self)
        )
        text, left_out = shorten(outcome.text, self._result_tokens(), self.agent.tokenizer)
        yield self._said(
            ResultEvent(
                step=self.steps,
                toolset=call.server,
                tool=call.tool,
                text=text,
                error=outcome.error,
                shortened=left_out,
                milliseconds=_milliseconds_since(start),
            )
        )
        return outcome

    def _answered(self) -> Iterator[Event]:
        pieces = self.agent.answer(
            self.messages,
            temperature=self.temperature,
            max_tokens=self.limits.answer_tokens,
            cancel=self.cancel,
            deadline=self._left(),
        )
        for piece in pieces:
            self.answer += piece
            yield TextEvent(text=piece)

    def _said(self, event: Event) -> Event:
        """The event, once it is in the conversation."""
        self.messages = extended(self.messages, event)
        return event

    def _approval_event(self, call: PendingCall, decision: Rule, reason: str) -> ApprovalEvent:
        return ApprovalEvent(step=self.steps, toolset=call.server, tool=call.tool, decision=decision, reason=reason)

    def _repeated(self, call: PendingCall, outcome: ToolOutcome) -> bool:
        latest = (call.server, call.tool, call.arguments, outcome)
        self.times = self.times + 1 if latest == self.latest else 1
        self.latest = latest
        return self.times >= self.limits.repeats

    def _result_tokens(self) -> int:
        return self.limits.result_tokens or self.agent.context_length // _RESULT_SHARE

    def _left(self) -> float | None:
        """Seconds that the run may still take; None: any number."""
        if self.limits.seconds is None:
            return None
        return max(0.0, self.limits.seconds - (time.monotonic() - self.start))

    def _stopped(self) -> tuple[Outcome, str] | None:
        if self.cancel.is_set():
            return "cancelled", "it was cancelled"
        if self._left() == 0.0:
            return "deadline", f"{self.limits.seconds:g} s are over"
        return None


def _milliseconds_since(start: float) -> float:
    return round(1e3 * (time.perf_counter() - start), 3)
