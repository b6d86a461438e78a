"""The adapters that a `dualtune.yaml` names, and what each learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles, is_answer
from dualtune_edge.export.finetune.settings import Objective, ToolsetSource
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import ToolsetSpec
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.prompts.trajectories import Trajectory
from dualtune_edge.toolkit.tools.tool_files import read_tools


@dataclass(frozen=True)
class Planned:
    """An adapter that the spec names.

    `sources`: the toolset that it is for, or all of them (`toolset` None). `samples`: turns of the data that it learns,
    before any is left out.
    """

    toolset: str | None
    objective: Objective
    tool: str | None
    sources: tuple[ToolsetSource, ...]
    output: Path
    template: Path | None
    samples: int


def planned(
    spec: ExportSpec, data: Path | None, files: TrajectoryFiles, objective: Objective | None = None
) -> tuple[Planned, ...]:
    """The adapters of a spec: the toolset choice's, of each toolset the selection's and the arguments', the answer's.

    Args:
        spec: read with `trained=False`.
        data: the trajectories of all toolsets; None: of each toolset its own.
        files: reads the data.
        objective: only the adapters that learn this; None: all.

    Raises:
        SpecError: a toolset has no data, adapters are named for no tool, or none are named.
        ToolsError, DataError: a tool list or the data cannot be read.

    """
    learnt = [_Learnt.read(toolset, data, files) for toolset in spec.toolsets]
    of_toolsets = (adapter for toolset in learnt for adapter in toolset.adapters())
    adapters = [*_of_choice(spec, learnt), *of_toolsets, *_of_answer(spec, learnt)]
    wanted = tuple(adapter for adapter in adapters if objective in (None, adapter.objective))
    if not wanted:
        raise SpecError(
            "adapters",
            found="none" if objective is None else f"none for the objective {objective!r}",
            expected="`toolset`, `answer`, or a toolset's `selection` or `arguments`: folders for adapters",
            fix="Name one in the spec.",
        )
    return wanted


@dataclass(frozen=True)
class _Learnt:
    """A toolset, and the lines that its adapters learn."""

    spec: ToolsetSpec
    source: ToolsetSource
    lines: Sequence[Trajectory]

    @classmethod
    def read(cls, toolset: ToolsetSpec, data: Path | None, files: TrajectoryFiles) -> _Learnt:
        """Read its data, `data` or its own."""
        path = data or toolset.trajectories
        if path is None:
            raise SpecError(
                f"toolset {toolset.name!r}",
                found="no data",
                expected="`trajectories`, the file that its adapters learn from",
                fix="Add it to the spec, or give --data for all toolsets.",
            )
        read = files.read(path)
        named = any(trajectory.toolset is not None for trajectory in read)
        source = ToolsetSource(
            name=toolset.name, description=toolset.description, tools=toolset.tools, data=path, named=named
        )
        return cls(toolset, source, [line for line in read if not named or line.toolset == toolset.name])

    def adapters(self) -> Iterator[Planned]:
        """Those of the toolset that the spec names."""
        counts, turns = _calls(self.lines)
        for objective, tool, output in _adapters(self.spec):
            yield Planned(
                toolset=self.spec.name,
                objective=objective,
                tool=tool,
                sources=(self.source,),
                output=output,
                template=self.spec.templates.arguments if tool else self.spec.templates.selection,
                samples=counts[tool] if tool else turns,
            )


def _of_choice(spec: ExportSpec, toolsets: Sequence[_Learnt]) -> Iterator[Planned]:
    """The adapter that chooses among toolsets, if the spec names one."""
    if spec.toolset is None:
        return
    files = [toolset.source.data for toolset in toolsets]
    sources = [
        # Lines of a file for several toolsets have to say which one they are of.
        toolset.source.model_copy(update={"named": toolset.source.named or files.count(toolset.source.data) > 1})
        for toolset in toolsets
    ]
    yield Planned(
        toolset=None,
        objective="toolset",
        tool=None,
        sources=tuple(sources),
        output=spec.toolset.path,
        template=spec.toolset_template,
        samples=sum(_calls(toolset.lines)[1] for toolset in toolsets),
    )


def _of_answer(spec: ExportSpec, toolsets: Sequence[_Learnt]) -> Iterator[Planned]:
    """The adapter that writes the answers, if the spec names one."""
    if spec.answer is None:
        return
    sources: dict[ToolsetSource, int] = {}  # with the turns that it teaches
    for toolset in toolsets:
        named = toolset.source.named
        source = ToolsetSource(name=toolset.source.name if named else "", data=toolset.source.data, named=named)
        sources[source] = sum(is_answer(message) for line in toolset.lines for message in line.messages)
    yield Planned(
        toolset=None,
        objective="answer",
        tool=None,
        sources=tuple(sources),
        output=spec.answer.path,
        template=spec.answer_template,
        samples=sum(sources.values()),
    )


def _adapters(toolset: ToolsetSpec) -> Iterator[tuple[Objective, str | None, Path]]:
    """Objective, tool and folder of each adapter; a tool without arguments has none."""
    if toolset.selection:
        yield "selection", None, toolset.selection.path
    names = [tool.name for tool in read_tools(toolset.tools) if tool.takes_arguments]
    if isinstance(toolset.arguments, Path):
        for name in names:
            yield "arguments", name, toolset.arguments / safe_name(name)
        return
    for name, adapter in (toolset.arguments or {}).items():
        if name not in names:
            raise SpecError(
                f"toolset {toolset.name!r}, arguments",
                found=f"an adapter for {name!r}",
                expected="tools of the list that take arguments",
                fix="Check the name, or remove the line.",
            )
        yield "arguments", name, adapter.path


def _calls(lines: Iterable[Trajectory]) -> tuple[Counter[str], int]:
    """The number of calls of each tool, and of all turns that are learnt."""
    answers = [
        message for line in lines for message in line.messages if message.role == "assistant" and message.weight != 0
    ]
    calls = Counter(message.tool_calls[0].function.name for message in answers if message.tool_calls)
    return calls, len(answers)
