"""All adapters of a `dualtune.yaml`, trained one after the other into the folders that it names."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from dualtune_edge.export.finetune.base import Base
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.export.finetune.report import RECORD, FinetuneReport, OnEvent, Record, fingerprint, origin
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.settings import FinetuneSettings, Objective
from dualtune_edge.export.finetune.train import finetune, open_base, template_of, threads
from dualtune_edge.export.plan.spec import ExportSpec, ToolsetSpec
from dualtune_edge.toolkit.errors import OutputError, SpecError
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, read_trajectories
from dualtune_edge.toolkit.tools.tool_files import read_tools

Outcome: TypeAlias = Literal["trained", "already trained", "no sample"]


@dataclass(frozen=True)
class Planned:
    """An adapter that the spec names."""

    toolset: str
    objective: Objective
    tool: str | None
    tools: Path
    data: Path
    output: Path
    template: Path | None
    samples: int  # turns of the data that it learns, before any is left out
    named: bool  # the data names toolsets: only the lines of this one are learnt


class AdapterRow(Frozen):
    """What became of one adapter of the spec."""

    toolset: str
    objective: Objective
    tool: str | None
    output: str
    outcome: Outcome
    samples: int
    steps: int = 0
    loss: float | None = None  # of the last step, nats a learnt token
    seconds: float = 0.0


class WholeReport(Frozen):
    """All adapters of a spec."""

    adapters: tuple[AdapterRow, ...]


def planned(spec: ExportSpec, data: Path | None) -> tuple[Planned, ...]:
    """The adapters of a spec: of each toolset the selection, then the arguments of its tools.

    Args:
        spec: read with `trained=False`.
        data: the trajectories of all toolsets; None: of each toolset its own.

    Raises:
        SpecError: a toolset has no data, or adapters are named for no tool.
        ToolsError, DataError: a tool list or the data cannot be read.

    """
    read: dict[Path, list[Trajectory]] = {}
    return tuple(adapter for toolset in spec.toolsets for adapter in _of_toolset(toolset, data, read))


def train_all(
    adapters: Sequence[Planned],
    settings_of: Callable[[Planned], FinetuneSettings],
    on_adapter: Callable[[Planned], None],
    on_event: OnEvent,
) -> WholeReport:
    """Train the adapters that are not there yet; an interrupted one goes on from its checkpoint.

    Args:
        adapters: of `planned`.
        settings_of: the run of an adapter.
        on_adapter: called before each run.
        on_event: gets the events of every run.

    Raises:
        OutputError: a folder holds something else than the adapter that the run would make.
        EdgeError: as for `finetune`.

    """
    rows: list[AdapterRow] = []
    with contextlib.ExitStack() as stack:
        runs = [settings_of(adapter) for adapter in adapters]
        stack.enter_context(threads(runs[0].threads))
        base = stack.enter_context(open_base(runs[0], Processes()))
        done = [run.output.exists() and _is_made_by(run, base) for run in runs]
        for adapter, run, there in zip(adapters, runs, done, strict=True):
            if there:
                rows.append(_row(adapter, "already trained"))
            elif not adapter.samples:
                rows.append(_row(adapter, "no sample"))
            else:
                on_adapter(adapter)
                resumed = run.model_copy(update={"resume": state_path(run.output).exists()})
                run.output.parent.mkdir(parents=True, exist_ok=True)
                rows.append(_row(adapter, "trained", finetune(resumed, on_event, base=base)))
    return WholeReport(adapters=tuple(rows))


def _of_toolset(toolset: ToolsetSpec, data: Path | None, read: dict[Path, list[Trajectory]]) -> Iterator[Planned]:
    path = data or toolset.trajectories
    if path is None:
        raise SpecError(
            f"toolset {toolset.name!r}",
            found="no data",
            expected="`trajectories`, the file that its adapters learn from",
            fix="Add it to the spec, or give --data for all toolsets.",
        )
    if path not in read:
        read[path] = read_trajectories(path)
    named = any(trajectory.toolset is not None for trajectory in read[path])
    lines = [line for line in read[path] if not named or line.toolset == toolset.name]
    counts, turns = _calls(lines)
    for objective, tool, output in _adapters(toolset):
        yield Planned(
            toolset=toolset.name,
            objective=objective,
            tool=tool,
            tools=toolset.tools,
            data=path,
            output=output,
            template=toolset.templates.arguments if tool else toolset.templates.selection,
            samples=counts[tool] if tool else turns,
            named=named,
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
    )
