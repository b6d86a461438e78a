"""All adapters of a `dualtune.yaml`, trained one after the other into the folders that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from dualtune_edge.export.finetune.estimate import Estimate, estimate
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import RECORD, FinetuneReport, OnEvent, Record, Score, fingerprint, origin
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles, is_answer, read_turns
from dualtune_edge.export.finetune.settings import FinetuneSettings, Objective, ToolsetSource
from dualtune_edge.export.finetune.train import RunData, opened, template_of, train
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import ToolsetSpec
from dualtune_edge.toolkit.errors import OutputError, SpecError
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.trajectories import Trajectory
from dualtune_edge.toolkit.tools.tool_files import read_tools

Outcome: TypeAlias = Literal["trained", "already trained", "no sample"]


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


class AdapterRow(Frozen):
    """What became of one adapter of the spec. `toolset` None: it is for all of them."""

    toolset: str | None
    objective: Objective
    tool: str | None
    output: str
    outcome: Outcome
    samples: int
    steps: int = 0
    loss: float | None = None  # of the last step, nats a learnt token
    seconds: float = 0.0
    held_out: Score | None = None  # of the step that is kept


class WholeReport(Frozen):
    """All adapters of a spec."""

    adapters: tuple[AdapterRow, ...]


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


def train_all(
    adapters: Sequence[Planned],
    settings_of: Callable[[Planned], FinetuneSettings],
    files: TrajectoryFiles,
    *,
    on_estimate: Callable[[Estimate], None],
    on_adapter: Callable[[Planned], None],
    on_event: OnEvent,
) -> WholeReport:
    """Train the adapters that are not there yet; an interrupted one goes on from its checkpoint.

    Args:
        adapters: of `planned`.
        settings_of: the run of an adapter.
        files: those that `planned` has read.
        on_estimate: gets what the runs will take, before the first one.
        on_adapter: called before each run.
        on_event: gets the events of every run.

    Raises:
        OutputError: a folder holds something else than the adapter that the run would make.
        EdgeError: as for `finetune`.

    """
    rows: list[AdapterRow] = []
    runs = [settings_of(adapter) for adapter in adapters]
    with opened(runs[0]) as (base, processes):
        todo = _todo(adapters, runs, base, files)
        if left := [run for run in todo if isinstance(run, RunData)]:
            on_estimate(estimate(left, base, processes))
        for adapter, run in zip(adapters, todo, strict=True):
            if isinstance(run, str):
                rows.append(_row(adapter, run))
            else:
                on_adapter(adapter)
                adapter.output.parent.mkdir(parents=True, exist_ok=True)
                rows.append(_row(adapter, "trained", train(run, base, processes, on_event)))
    return WholeReport(adapters=tuple(rows))


def estimate_all(
    adapters: Sequence[Planned], settings_of: Callable[[Planned], FinetuneSettings], files: TrajectoryFiles
) -> Estimate:
    """What `train_all` would take.

    Raises:
        EdgeError: as for it.

    """
    runs = [settings_of(adapter) for adapter in adapters]
    with opened(runs[0]) as (base, processes):
        left = [run for run in _todo(adapters, runs, base, files) if isinstance(run, RunData)]
        return estimate(left, base, processes)


def _todo(
    adapters: Sequence[Planned], runs: Sequence[FinetuneSettings], base: Base, files: TrajectoryFiles
) -> list[RunData | Outcome]:
    """What is read for each adapter that is still to be trained; of the others, why nothing is."""
    todo: list[RunData | Outcome] = []
    for adapter, run in zip(adapters, runs, strict=True):
        if run.output.exists() and _is_made_by(run, base):
            todo.append("already trained")
        elif not adapter.samples or (run.held_out_share and not read_turns(run, files)[0].turns):
            todo.append("no sample")
        else:
            resumed = run.model_copy(update={"resume": state_path(run.output).exists()})
            todo.append(RunData.read(resumed, base, files))
    return todo


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


def _is_made_by(run: FinetuneSettings, base: Base) -> bool:
    """Whether the adapter that is there is the one that the run would make.

    Raises:
        OutputError: it is not.

    """
    wanted = origin(run, base.checkpoint, template_of(run, base))
    try:
        found = Record.model_validate_json((run.output / RECORD).read_bytes())
    except (OSError, ValueError):
        found = None
    if found is None or fingerprint(found.origin) != fingerprint(wanted):
        raise OutputError(
            str(run.output),
            found="something else" if found is None else "an adapter of other settings, data, base or versions",
            expected="nothing, or the adapter that this run makes",
            fix="Move it away to train it again, or train with the settings of its training.json.",
        )
    return True


def _row(adapter: Planned, outcome: Outcome, report: FinetuneReport | None = None) -> AdapterRow:
    return AdapterRow(
        toolset=adapter.toolset,
        objective=adapter.objective,
        tool=adapter.tool,
        output=str(adapter.output),
        outcome=outcome,
        samples=report.samples if report else adapter.samples,
        steps=report.steps if report else 0,
        loss=report.losses[-1] if report else None,
        seconds=report.seconds if report else 0.0,
        held_out=report.kept_score if report else None,
    )
