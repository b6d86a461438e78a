"""Measure the kit on its held-out conversations: every assistant's turn is answered as on the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories
from dualtune_edge_kit.training.measuring import specs
from dualtune_edge_kit.training.measuring.specs import Method

TIE: Final = 0.005  # of probability: two candidates as near as this to one half are a tie


@dataclass(frozen=True)
class Turn:
    """A point of a conversation where the assistant is next. `call` is None where no tool is needed."""

    toolset: str
    context: tuple[Message, ...]
    call: FunctionCall | None


@dataclass(frozen=True)
class Score:
    """Counts. A tool is right if it is the expected one, or none where none is expected."""

    turns: int
    toolsets: int  # right toolsets
    tools: int  # right tools, within the right toolset
    calls: int  # turns that call a tool
    whole: int  # right tools with exactly the right arguments, of these
    end_to_end: int  # the same where the toolset was chosen too

    def cells(self) -> str:
        """Columns of the table, in percent."""
        shares = (
            self.toolsets / self.turns,
            self.tools / self.turns,
            self.whole / self.calls,
            self.end_to_end / self.calls,
        )
        return " | ".join(f"{100 * share:.1f}" for share in shares)


def read_turns(path: Path, names: Sequence[str]) -> list[Turn]:
    """All assistant's turns of a file of conversations."""
    return [
        Turn(name, trajectory.messages[:index], message.tool_calls[0].function if message.tool_calls else None)
        for name in names
        for trajectory in read_trajectories(path, name)
        for index, message in enumerate(trajectory.messages)
        if message.role == "assistant"
    ]


def measure(agent: Agent, turns: Sequence[Turn], say: Callable[[str], None]) -> Score:
    """Answer every turn. Where the base chooses the wrong toolset, the turn is answered within the right one too."""
    toolsets = tools = whole = end_to_end = 0
    for turn in turns:
        chosen = _answer(agent, turn, None, say)
        routed = chosen is not None and chosen.toolset == turn.toolset
        answer = chosen if routed else _answer(agent, turn, turn.toolset, say)
        named = answer is not None and answer.tool == (turn.call.name if turn.call else None)
        exact = named and turn.call is not None and answer is not None and answer.arguments == turn.call.arguments
        toolsets += routed
        tools += named
        whole += exact
        end_to_end += exact and routed
        if not (exact if turn.call else named):
            given = answer and (answer.tool, answer.arguments)
            say(f"{turn.context[-1].content!r}: expected {turn.call}, found {given}")
    calls = sum(turn.call is not None for turn in turns)
    return Score(len(turns), toolsets, tools, calls, whole, end_to_end)


def differences(one: Agent, other: Agent, turns: Sequence[Turn], say: Callable[[str], None]) -> int:
    """The number of turns that two agents answer differently, in the outcome, the tool or an argument.

    All are printed. Those where a choice is a tie (`TIE`) to both are not counted: the order of int4 sums decides it.
    """
    count = 0
    for turn in turns:
        answers = [_answer(agent, turn, None, say) for agent in (one, other)]
        calls = [answer and (answer.toolset, answer.tool, answer.arguments) for answer in answers]
        if calls[0] != calls[1]:
            tied = _tied(*answers)
            count += not tied
            say(f"{turn.context[-1].content!r}: {calls[0]} and {calls[1]}{', a tie' if tied else ''}")
    return count


def _tied(one: CallResult | None, other: CallResult | None) -> bool:
    """Whether the first choice in which two answers differ is a tie in both."""
    if one is None or other is None:
        return False
    if one.toolset != other.toolset:
        return all(
            answer.toolset_probability is not None and answer.toolset_probability < 0.5 + TIE for answer in (one, other)
        )
    second = [
        max((alternative.probability for alternative in answer.alternatives), default=0.0) for answer in (one, other)
    ]
    return one.tool != other.tool and max(one.probability - second[0], other.probability - second[1]) < 2 * TIE


def reference(bundle: Path, kit: Path, method: Method) -> Agent:
    """An agent on the bundle's prompts whose model is the checkpoint in PyTorch, in float32."""
    return Agent(open_bundle(bundle), reference_engine(kit, method), copied=False)


def reference_engine(kit: Path, method: Method) -> TorchEngine:
    """The kit's checkpoint with a method's adapters, named as in a bundle."""
    spec = specs.spec(method, "external", kit)
    adapters = {"toolset": spec.toolset.path} if spec.toolset else {}
    for toolset in spec.toolsets:
        if toolset.selection:
            adapters[f"selection.{toolset.name}"] = toolset.selection.path
        if isinstance(toolset.arguments, dict):
            adapters |= {f"arguments.{toolset.name}.{tool}": own.path for tool, own in toolset.arguments.items()}
    return TorchEngine(read_checkpoint(kit / "base"), adapters)


def _answer(agent: Agent, turn: Turn, toolset: str | None, say: Callable[[str], None]) -> CallResult | None:
    """The agent's answer; None where it refuses, which counts as wrong."""
    try:
        return agent.call(turn.context, toolset=toolset)
    except RequestError as error:
        say(f"refused: {error}")
        return None
