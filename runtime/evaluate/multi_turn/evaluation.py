"""Let a bundle, and another one, work through BFCL's dialogues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.agent.approval import Approval, PendingCall, Rule
from dualtune_edge.runtime.agent.events import Event
from dualtune_edge.runtime.agent.loop import RunLimits, run
from dualtune_edge.runtime.agent.transcript import extended
from dualtune_edge.runtime.bench.requests import spread
from dualtune_edge.runtime.evaluate.multi_turn.rows import Dialogue, Turn, read_dialogues
from dualtune_edge.runtime.evaluate.multi_turn.simulation import Simulation
from dualtune_edge.runtime.evaluate.tasks.report import TaskSide, task_side
from dualtune_edge.runtime.evaluate.tasks.running import TaskCall, TaskResult, followed, matched_calls
from dualtune_edge.runtime.evaluate.tasks.task import GoldCall
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.prompts.messages import Message

_STEPS: Final = 20  # calls of a turn, as BFCL has it; one more, and the dialogue is wrong
_ANSWER_TOKENS: Final = 128


@dataclass(frozen=True)
class WantedDialogues:
    """At most `count` of the rows in `path`, with the functions that `python` simulates."""

    path: Path
    python: Path
    count: int
    profile: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class _Anything:
    """Approves every call: they change a simulation."""

    def rule(self, call: PendingCall) -> tuple[Rule, str]:  # noqa: ARG002 - whatever it is
        return "allow", "simulated"

    def ask(self, call: PendingCall) -> Approval:
        """Nobody is asked."""
        raise AssertionError(call)


def do_dialogues(
    bundle: Path, wanted: WantedDialogues, on_step: Callable[[str], None], on_note: Callable[[str], None]
) -> TaskSide:
    """Let a bundle work through the dialogues. One is done if BFCL's checker finds every turn right.

    Args:
        bundle: its folder.
        wanted: the dialogues.
        on_step: is called with the name of each step before it begins.
        on_note: is called with how many rows are passed over.

    Raises:
        DataError: no rows, or none that the bundle can work on.
        EngineError: the functions cannot be simulated.

    """
    with Agent.open(bundle, profile=wanted.profile, threads=wanted.threads) as agent:
        rows, passed_over = read_dialogues(wanted.path, agent.bundle.manifest)
        if passed_over:
            on_note(
                f"{passed_over} rows of {wanted.path} are passed over: {bundle.name} has not all of their functions"
            )
        dialogues, results = spread(rows, wanted.count), []
        for number, dialogue in enumerate(dialogues, start=1):
            on_step(f"{bundle.name}: dialogue {number} of {len(dialogues)}, {dialogue.name}")
            with Simulation(wanted.python, dialogue) as systems:
                results.append(work_through(agent, dialogue, systems))
        return task_side(bundle.name, agent.bundle.hashes[MANIFEST], results)


def work_through(agent: Agent, dialogue: Dialogue, systems: Simulation) -> TaskResult:
    """Turn by turn, until one is wrong."""
    conversation = _Conversation(agent, systems)
    calls: list[TaskCall] = []
    right: list[GoldCall] = []
    faults: list[str] = []
    seconds = 0.0
    for number, turn in enumerate(dialogue.turns, start=1):
        made, end = followed(conversation.events(turn))
        calls += made
        seconds += end.seconds
        if end.outcome != "answered":
            faults.append(f"turn {number}: {end.reason}")
            break
        verdict = systems.check(turn)
        right += verdict.calls
        if not verdict.valid:
            faults.append(f"turn {number}: {verdict.message}")
            break
    return TaskResult(
        task=dialogue.name,
        request=dialogue.turns[0].messages[-1].content,
        toolsets=dialogue.systems,
        done=not faults,
        faults=tuple(faults),
        outcome=end.outcome,
        answer=end.answer,
        calls=tuple(calls),
        gold=sum(len(turn.right) for turn in dialogue.turns),
        matched=matched_calls(right, calls),
        seconds=round(seconds, 3),
    )


@dataclass
class _Conversation:
    agent: Agent
    systems: Simulation
    messages: tuple[Message, ...] = ()

    def events(self, turn: Turn) -> Iterator[Event]:
        """Those of a turn, which is in the conversation afterwards."""
        self.systems.begin(turn)
        self.messages += turn.messages
        limits = RunLimits(_STEPS, repeats=_STEPS + 1, answer_tokens=_ANSWER_TOKENS)
        for event in run(self.agent, self.messages, self.systems, _Anything(), limits=limits):
            self.messages = extended(self.messages, event)
            yield event
