"""The assistant's turns that a run learns: which ones of the trajectories, and what each teaches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.export.data.lines import Line
from dualtune_edge.export.data.split import split
from dualtune_edge.export.finetune.settings import FinetuneSettings, ToolsetSource
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, call
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, of_toolset, read_trajectories
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing, nearest


@dataclass(frozen=True)
class Turn:
    """An assistant's turn that is learnt: its context, the tool that it calls, and the turn that it teaches."""

    where: str
    context: tuple[Message, ...]
    tool: str  # the no-tool entry, where it calls none
    answer: Message

    @property
    def chosen(self) -> FunctionCall:
        """What it teaches as a call, of a tool or of a toolset."""
        return self.answer.tool_calls[0].function


class TrajectoryFiles:
    """Files of trajectories, each read once for all adapters that learn from it."""

    def __init__(self) -> None:
        self._read: dict[Path, list[Trajectory]] = {}

    def read(self, path: Path, toolset: str | None = None) -> list[Trajectory]:
        """As `read_trajectories`."""
        if path not in self._read:
            self._read[path] = read_trajectories(path)
        return list(self._read[path]) if toolset is None else of_toolset(self._read[path], toolset)


@dataclass(frozen=True)
class Turns:
    """The turns of a run, in the order of the data, and the conversations that they are from.

    `warnings`: of turns that might be learnt and are not.
    """

    turns: tuple[Turn, ...]
    trajectories: tuple[Trajectory, ...]
    warnings: tuple[str, ...] = ()


def read_turns(settings: FinetuneSettings, files: TrajectoryFiles) -> tuple[Turns, Turns]:
    """The turns that a run learns, before any is left out; and those that are held out.

    Raises:
        ToolsError: a tool list cannot be read.
        DataError: a line cannot be used, or there are too few to hold any out.

    """
    learnt, held = list[_Lines](), list[_Lines]()
    for source, (lines, others) in zip(settings.sources, _parts(settings, files), strict=True):
        tools = {tool.name: tool for tool in read_tools(source.tools)} if source.tools else {}
        learnt.append(_Lines(source.name, tools, lines))
        held.append(_Lines(source.name, tools, others))
    return _turns(settings, learnt), _turns(settings, held)


@dataclass(frozen=True)
class _Lines:
    """Conversations of a toolset."""

    toolset: str
    tools: Mapping[str, Tool]
    trajectories: Sequence[Trajectory]


def _parts(settings: FinetuneSettings, files: TrajectoryFiles) -> Iterator[tuple[list[Trajectory], list[Trajectory]]]:
    """Of each source the conversations that are learnt, and those that are held out."""
    sources = [files.read(source.data, source.name if source.named else None) for source in settings.sources]
    drawn = _drawn([line for lines in sources for line in lines], settings) if settings.held_out_share else set()
    for source, lines in zip(settings.sources, sources, strict=True):
        if settings.held_out:
            yield lines, _held_out(settings, source, files, settings.held_out)
        else:
            yield [line for line in lines if line.where not in drawn], [line for line in lines if line.where in drawn]


def _drawn(lines: Sequence[Trajectory], settings: FinetuneSettings) -> set[str]:
    """Where the lines are that are held out: of all sources together, since a recorded run is a line of several."""
    shares = (1 - settings.held_out_share, settings.held_out_share)
    _, held = split([Line(line.where, "", line) for line in lines], shares, settings.seed)
    return {line.where for line in held}


def _held_out(
    settings: FinetuneSettings, source: ToolsetSource, files: TrajectoryFiles, path: Path
) -> list[Trajectory]:
    """The lines of what is held out that are a source's: those that name its toolset, or all where they name none."""
    toolset = source.name or settings.own_toolset
    if source.named or (toolset and len(settings.sources) > 1):
        return files.read(path, toolset)
    lines = files.read(path)
    if toolset and any(line.toolset is not None for line in lines):
        return files.read(path, toolset)
    # Answers of several files that name no toolset: what no other source has is held out once.
    first = next(other for other in settings.sources if not other.named)
    names = {other.name for other in settings.sources if other.named}
    return [line for line in lines if line.toolset not in names] if source == first else []


def _turns(settings: FinetuneSettings, lines: Sequence[_Lines]) -> Turns:
    turns: list[Turn] = []
    answers = _Answers(settings.no_tool)
    for entry in lines:
        for trajectory in entry.trajectories:
            match settings.objective:
                case "toolset":
                    turns += _routed(trajectory, entry.tools, entry.toolset, settings.no_tool)
                case "answer":
                    turns += answers.of(trajectory)
                case _:
                    turns += _called(trajectory, entry.tools, settings)
    trajectories = tuple(trajectory for entry in lines for trajectory in entry.trajectories)
    return Turns(tuple(turns), trajectories, answers.warnings)


def _called(trajectory: Trajectory, tools: Mapping[str, Tool], settings: FinetuneSettings) -> Iterator[Turn]:
    """Every turn as its call, one without a call as the no-tool entry's; or those that call the settings' tool."""
    for index, message in enumerate(trajectory.messages):
        if message.role != "assistant" or message.weight == 0:
            continue
        where = f"{trajectory.where}, message {index + 1}"
        answer = FunctionCall(name=settings.no_tool)
        if message.tool_calls:
            answer = message.tool_calls[0].function
            _check_call(answer, tools, where)
        if settings.tool in (None, answer.name):
            yield Turn(where, trajectory.messages[:index], answer.name, call(answer.name, answer.arguments))


def _routed(trajectory: Trajectory, tools: Mapping[str, Tool], toolset: str, no_tool: str) -> Iterator[Turn]:
    """The turns of a toolset, as calls of it: those that call a tool, and those without a call behind such a one.

    A recorded run of several toolsets is a line of each, with weight 0 for the calls of the others: behind these a turn
    without a call is another line's.
    """
    own = True
    for index, message in enumerate(trajectory.messages):
        if message.role != "assistant":
            continue
        where, learnt, called = f"{trajectory.where}, message {index + 1}", message.weight != 0, no_tool
        if message.tool_calls:
            own, called = learnt, message.tool_calls[0].function.name
        if message.tool_calls and learnt:
            _check_call(message.tool_calls[0].function, tools, where)
        if own and learnt:
            yield Turn(where, trajectory.messages[:index], called, call(toolset))


class _Answers:
    """The turns in words. Those of a recorded run of several toolsets, which is a line of each, are learnt once."""

    def __init__(self, no_tool: str) -> None:
        self._no_tool = no_tool
        self._toolsets: dict[str, str | None] = {}  # conversation up to an answer → the toolset of its first line
        self._silent = self._repeated = 0

    def of(self, trajectory: Trajectory) -> Iterator[Turn]:
        """The turns of a conversation that say something, and call nothing."""
        for index, message in enumerate(trajectory.messages):
            if not is_answer(message):
                continue
            said = [other.model_dump(exclude={"weight"}) for other in trajectory.messages[: index + 1]]
            first = self._toolsets.setdefault(json.dumps(said, sort_keys=True), trajectory.toolset)
            if not message.content.strip():
                self._silent += 1
            elif first != trajectory.toolset:
                self._repeated += 1
            else:
                where = f"{trajectory.where}, message {index + 1}"
                yield Turn(where, trajectory.messages[:index], self._no_tool, message)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not learnt of what was seen."""
        silent, repeated = self._silent, self._repeated
        return (
            *([f"{silent} turns call nothing and say nothing: they are not learnt"] if silent else []),
            *([f"{repeated} answers stand in lines of several toolsets: each is learnt once"] if repeated else []),
        )


def is_answer(message: Message) -> bool:
    """Whether a turn is the assistant's in words, and is to be learnt."""
    return message.role == "assistant" and not message.tool_calls and message.weight != 0


def _check_call(answer: FunctionCall, tools: Mapping[str, Tool], where: str) -> None:
    if answer.name not in tools:
        raise unusable(where, f"a call of {answer.name!r}", listing(tools), nearest(answer.name, tools))
    if refused := tools[answer.name].reading.fault(answer.arguments):
        raise unusable(
            where,
            f"a call of {answer.name!r}: {refused}",
            "arguments that fit the tool's schema",
            "Correct the call: it would be learnt.",
        )


def unusable(where: str, found: str, expected: str, fix: str) -> DataError:
    """The error of data that cannot be learnt."""
    return DataError(where, found=found, expected=expected, fix=fix)
