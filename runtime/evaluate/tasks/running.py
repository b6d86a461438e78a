"""Let an agent do a task on real servers, and check what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from dualtune_edge.runtime.agent.approval import Approval, PendingCall, Policy, Rule
from dualtune_edge.runtime.agent.events import ApprovalEvent, ArgumentsEvent, DoneEvent, Event, Outcome, ResultEvent
from dualtune_edge.runtime.agent.loop import RunLimits, run
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.runtime.agent.toolbox import Cancellation, Toolbox
from dualtune_edge.runtime.evaluate.tasks.state import State, differences, expected, read
from dualtune_edge.runtime.evaluate.tasks.task import Check, GoldCall, Task, World
from dualtune_edge.runtime.evaluate.tasks.worlds import build
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.frozen import Frozen

_REPEATS: Final = 2  # equal calls with equal results, which end a run
_ANSWER_TOKENS: Final = 128
CallState: TypeAlias = Literal["done", "failed", "denied"]


class TaskCall(Frozen):
    """A call that the agent decided on: the server did it, it failed, or it was not allowed."""

    call: str
    arguments: dict[str, Any]
    state: CallState


class TaskResult(Frozen):
    """How a task ended. `matched`: how many of its gold calls were made, with just these arguments."""

    task: str
    request: str
    toolsets: tuple[str, ...]
    done: bool
    faults: tuple[str, ...]  # why it is not
    outcome: Outcome
    answer: str
    calls: tuple[TaskCall, ...]
    gold: int
    matched: int
    seconds: float


@dataclass(frozen=True)
class SandboxApprover:
    """A policy in which `ask` is a yes, but for calls that name a path out of the sandbox."""

    sandbox: Sandbox
    policy: Policy

    def rule(self, call: PendingCall) -> tuple[Rule, str]:
        """`allow` or `deny`: nobody is asked."""
        rule, where = self.policy.rule(call)
        if rule == "deny":
            return rule, where
        if path := self.sandbox.outside(call.arguments):
            return "deny", f"{path} is outside of the task's folder"
        return "allow", where

    def ask(self, call: PendingCall) -> Approval:
        """Nobody is asked."""
        raise AssertionError(call)


@dataclass(frozen=True)
class OfferedServers:
    """Servers of which a task is offered some toolsets, and the results that were no errors."""

    servers: Toolbox
    toolsets: tuple[str, ...]
    texts: list[str] = field(default_factory=list)

    def offer(self, manifest: Manifest, *, cancel: Cancellation | None = None) -> Offer:
        """The task's toolsets."""
        offer = self.servers.offer(manifest, cancel=cancel)
        tools = {name: names for name, names in offer.tools.items() if name in self.toolsets}
        return Offer(tools, offer.read_only, offer.notes)

    def call(
        self, server: str, tool: str, arguments: dict[str, Any], *, cancel: Cancellation | None = None
    ) -> ToolOutcome:
        """Pass it on."""
        outcome = self.servers.call(server, tool, arguments, cancel=cancel)
        if not outcome.error:
            self.texts.append(outcome.text)
        return outcome


@dataclass(frozen=True)
class Desk:
    """What does tasks: an agent, servers that `connect` starts for each task, and which calls may be made."""

    agent: Agent
    connect: Callable[[], AbstractContextManager[Toolbox]]
    approver: SandboxApprover

    @property
    def root(self) -> Path:
        """The folder that the servers work in."""
        return self.approver.sandbox.path

    def do(self, task: Task, world: World) -> TaskResult:
        """Let the agent do a task.

        Raises:
            DataError: the world cannot be built.
            ToolsError: no tool of one of its toolsets can be called.
            RequestError: the request is malformed.

        """
        build(self.root, world)
        before, placed = read(self.root), task.at(self.root)
        with self.connect() as servers:
            tools = OfferedServers(servers, task.toolsets)
            refuse_absent(servers.offer(self.agent.bundle.manifest), task.toolsets)
            limits = RunLimits(task.steps, _REPEATS, task.seconds, answer_tokens=_ANSWER_TOKENS)
            calls, end = followed(run(self.agent, placed.request, tools, self.approver, limits=limits))
        faults = tuple(check_faults(placed.check, self.root, before, tools.texts, end.answer))
        return TaskResult(
            task=task.name,
            request=task.request,
            toolsets=task.toolsets,
            done=not faults,
            faults=faults,
            outcome=end.outcome,
            answer=end.answer,
            calls=calls,
            gold=len(task.gold),
            matched=matched_calls(placed.gold, calls),
            seconds=end.seconds,
        )


def notes_of(offer: Offer, toolsets: Collection[str]) -> list[str]:
    """What an offer says of these toolsets: their tools that cannot be called, and why."""
    starts = tuple(f"{name}{mark}" for name in toolsets for mark in ":.")
    return [note for note in offer.notes if note.startswith(starts)]


def refuse_absent(offer: Offer, toolsets: Sequence[str]) -> None:
    """Refuse to do a task without one of its toolsets.

    Raises:
        ToolsError: no tool of one can be called.

    """
    for name in toolsets:
        if name not in offer.tools:
            raise ToolsError(
                name,
                found="; ".join(notes_of(offer, (name,))),
                expected="a server whose tools can be called",
                fix="Check that it starts: what a bundle does without its tools says nothing about it.",
            )


def followed(events: Iterator[Event]) -> tuple[tuple[TaskCall, ...], DoneEvent]:
    """The calls of a run, and its end."""
    calls: list[TaskCall] = []
    for event in events:
        if isinstance(event, ArgumentsEvent):
            name = f"{event.toolset}.{event.tool}"
            calls.append(TaskCall(call=name, arguments=event.arguments, state="failed"))
        elif isinstance(event, ApprovalEvent) and event.decision == "deny":
            calls[-1] = calls[-1].model_copy(update={"state": "denied"})
        elif isinstance(event, ResultEvent) and not event.error:
            calls[-1] = calls[-1].model_copy(update={"state": "done"})
    assert isinstance(event, DoneEvent)  # noqa: S101 - a run's last event
    return tuple(calls), event


def check_faults(check: Check, root: Path, before: State, texts: Sequence[str], answer: str) -> Iterator[str]:
    """What is wrong after a run, a line each."""
    yield from differences(expected(before, check), read(root, before))
    for fact in check.facts:
        if not any(fact in text for text in (*texts, answer)):
            yield f"no result and no answer says {fact!r}"
    for line in check.excluded:
        if any(line in text for text in texts):
            yield f"a result says {line!r}"


def matched_calls(gold: Sequence[GoldCall], calls: Sequence[TaskCall]) -> int:
    """How many of the gold calls were made, with just their arguments."""
    made, count = [(call.call, call.arguments) for call in calls], 0
    for wanted in gold:
        if (wanted.call, wanted.arguments) in made:
            made.remove((wanted.call, wanted.arguments))
            count += 1
    return count
