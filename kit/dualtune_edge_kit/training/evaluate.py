"""Measure the kit on its held-out conversations: every assistant's turn, answered as the device would answer it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.runtime.bundle.folder import open_bundle
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories
from dualtune_edge_kit.training import specs
from dualtune_edge_kit.training.specs import Method

TIE: Final = 0.005  # probability: two candidates this near to one half are equals


@dataclass(frozen=True)
class Turn:
    """A point of a conversation where the assistant speaks next. `call` is None where it needs no tool."""

    toolset: str
    context: tuple[Message, ...]
    call: FunctionCall | None


@dataclass(frozen=True)
class Score:
    """Counts. A tool is right where it is the one that was meant, or none where none was."""

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
        Turn(name, each.messages[:index], message.tool_calls[0].function if message.tool_calls else None)
        for name in names
        for each in read_trajectories(path, name)
        for index, message in enumerate(each.messages)
        if message.role == "assistant"
    ]


def measure(agent: Agent, turns: Sequence[Turn], tell: Callable[[str], None]) -> Score:
    """Answer every turn. Where the base picks the wrong toolset, the turn is answered within the right one too."""
    toolsets = tools = whole = end_to_end = 0
    for turn in turns:
        chosen = _answer(agent, turn, None, tell)
        routed = chosen is not None and chosen.toolset == turn.toolset
        answer = chosen if routed else _answer(agent, turn, turn.toolset, tell)
        named = answer is not None and answer.tool == (turn.call.name if turn.call else None)
        exact = named and turn.call is not None and answer is not None and answer.arguments == turn.call.arguments
        toolsets += routed
        tools += named
        whole += exact
        end_to_end += exact and routed
        if not (exact if turn.call else named):
            tell(f"{turn.context[-1].content!r}: wanted {turn.call}, got {answer and (answer.tool, answer.arguments)}")
    calls = sum(turn.call is not None for turn in turns)
    return Score(len(turns), toolsets, tools, calls, whole, end_to_end)


def differences(one: Agent, other: Agent, turns: Sequence[Turn], tell: Callable[[str], None]) -> int:
    """How many turns two agents answer differently: another outcome, tool or argument.

    All are told, but those where a choice was a tie (`TIE`) to both are not counted: the same int4 sums in another
    order decide it.
    """
    count = 0
    for turn in turns:
        answers = [_answer(agent, turn, None, tell) for agent in (one, other)]
        calls = [answer and (answer.toolset, answer.tool, answer.arguments) for answer in answers]
        if calls[0] != calls[1]:
            tied = _tied(*answers)
            count += not tied
            tell(f"{turn.context[-1].content!r}: {calls[0]} and {calls[1]}{', a tie' if tied else ''}")
    return count


def _tied(one: CallResult | None, other: CallResult | None) -> bool:
    """Whether the first choice that two answers differ in was one between equals to both."""
    if one is None or other is None:
        return False
    if one.toolset != other.toolset:
        return all(
            each.toolset_probability is not None and each.toolset_probability < 0.5 + TIE for each in (one, other)
        )
    second = [max((each.probability for each in answer.alternatives), default=0.0) for answer in (one, other)]
    return one.tool != other.tool and max(one.probability - second[0], other.probability - second[1]) < 2 * TIE


def reference(bundle: Path, kit: Path, method: Method) -> Agent:
    """The bundle's prompts on the checkpoint itself, in PyTorch float32."""
    return Agent(open_bundle(bundle), reference_engine(kit, method))


def reference_engine(kit: Path, method: Method) -> TorchEngine:
    """The kit's checkpoint with a method's adapters, named as in a bundle."""
    adapters: dict[str, Path] = {}
    for toolset in specs.spec(method, "external", kit).toolsets:
        if toolset.selection:
            adapters[f"selection.{toolset.name}"] = toolset.selection.path
        if isinstance(toolset.arguments, dict):
            adapters |= {f"arguments.{toolset.name}.{tool}": each.path for tool, each in toolset.arguments.items()}
    return TorchEngine(kit / "base", adapters)


def _answer(agent: Agent, turn: Turn, toolset: str | None, tell: Callable[[str], None]) -> CallResult | None:
    """The agent's answer; None where it refuses, which counts as wrong."""
    try:
        return agent.call(turn.context, toolset=toolset)
    except RequestError as error:
        tell(f"refused: {error}")
        return None
