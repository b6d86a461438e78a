"""Run a task by an agent, or by its own gold calls, and check what came of it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from checkable import state
from checkable.servers import configs
from checkable.task import Check, GoldCall, Task, Tasks
from dualtune_edge.runtime.agent import Approval, DoneEvent, PendingCall, RunLimits, Toolbox, run
from dualtune_edge.runtime.agent.approval import Rule
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.servers import Servers
from dualtune_edge.runtime.agent.toolbox import Cancellation
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.frozen import Frozen

LIMITS: Final = RunLimits(steps=8, repeats=2, seconds=120.0, answer_tokens=128)


class Made(Frozen):
    """A call that was made, or denied, and whether it failed."""

    call: str
    arguments: dict[str, Any]
    error: bool


class TaskResult(Frozen):
    """How a task ended. `matched`: how many of its gold calls were made, with just these arguments."""

    task: str
    toolsets: tuple[str, ...]
    ok: bool
    faults: tuple[str, ...]  # why it is not
    outcome: str
    answer: str
    calls: tuple[Made, ...]
    gold: int
    matched: int
    seconds: float


@dataclass
class Within:
    """Approves every call but those of the git server outside a folder, which it would not refuse itself."""

    root: Path

    def rule(self, call: PendingCall) -> tuple[Rule, str]:
        """`allow`, or `deny` outside the folder."""
        path = Path(os.path.expandvars(str(call.arguments.get("repo_path", ".")))).expanduser()  # as GitPython does
        inside = (self.root / path).resolve().is_relative_to(self.root.resolve())
        return ("allow", "it stays in the folder") if inside else ("deny", f"{path} is outside of the task's folder")

    def ask(self, call: PendingCall) -> Approval:
        """Nobody is asked."""
        raise AssertionError(call)


@dataclass
class Watched:
    """Servers of which a task sees some toolsets, and whose calls are noted."""

    servers: Toolbox
    toolsets: tuple[str, ...]
    texts: list[str] = field(default_factory=list)  # results that are no errors

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


def run_tasks(bundle: Path, tasks: Tasks, chosen: Iterable[Task]) -> Iterator[TaskResult]:
    """Let a bundle do the tasks, one after the other, on the real servers in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tasks-") as folder:
        root = Path(folder).resolve()
        with Agent.open(bundle) as agent, Servers(configs(root)) as servers:
            for note in servers.offer(agent.bundle.manifest).notes:
                print(f"note: {note}", file=sys.stderr)
            for task in chosen:
                yield run_task(agent, servers, root, tasks, task)


def run_task(agent: Agent, servers: Servers, root: Path, tasks: Tasks, task: Task) -> TaskResult:
    """Let an agent do a task in the folder `root`, in which the servers work."""
    state.build(root, tasks.world(task))
    before, tools, calls = state.read(root), Watched(servers, task.toolsets), list[Made]()
    for event in run(agent, task.request, tools, Within(root), limits=LIMITS):
        if event.event == "arguments":
            calls.append(Made(call=f"{event.toolset}.{event.tool}", arguments=event.arguments, error=True))
        elif event.event == "result":
            calls[-1] = calls[-1].model_copy(update={"error": event.error})
    assert isinstance(event, DoneEvent)
    faults = tuple(check_faults(task.check, root, before, tools.texts, event.answer))
    return TaskResult(
        task=task.name,
        toolsets=task.toolsets,
        ok=not faults,
        faults=faults,
        outcome=event.outcome,
        answer=event.answer,
        calls=tuple(calls),
        gold=len(task.gold),
        matched=_matched(task.gold, calls),
        seconds=event.seconds,
    )


def run_gold(servers: Servers, root: Path, tasks: Tasks, task: Task) -> Iterator[tuple[str, ...]]:
    """What the check finds wrong before the first gold call, and after each of them."""
    state.build(root, tasks.world(task))
    before, tools = state.read(root), Watched(servers, task.toolsets)
    yield tuple(check_faults(task.check, root, before, tools.texts, ""))
    for gold in task.gold:
        outcome = tools.call(gold.toolset, gold.tool, gold.arguments)
        assert not outcome.error, f"{task.name}: {gold.call}: {outcome.text}"
        yield tuple(check_faults(task.check, root, before, tools.texts, ""))


def check_faults(check: Check, root: Path, before: state.State, texts: list[str], answer: str) -> Iterator[str]:
    """What is wrong after a run, a line each."""
    yield from state.differences(state.expected(before, check), state.read(root))
    for fact in check.facts:
        sought = fact.replace("{root}", str(root))
        if not any(sought in text for text in (*texts, answer)):
            yield f"no result and no answer says {fact!r}"
    for line in check.excluded:
        if any(line in text for text in texts):
            yield f"a result says {line!r}"


def _matched(gold: tuple[GoldCall, ...], calls: list[Made]) -> int:
    made, count = [(call.call, call.arguments) for call in calls], 0
    for wanted in gold:
        if (wanted.call, wanted.arguments) in made:
            made.remove((wanted.call, wanted.arguments))
            count += 1
    return count
