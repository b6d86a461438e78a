"""All adapters of a `dualtune.yaml`, trained one after the other into the folders that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from dualtune_edge.export.finetune.estimate import Estimate, estimate
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import RECORD, FinetuneReport, OnEvent, Record, Score, fingerprint, origin
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles, read_turns
from dualtune_edge.export.finetune.settings import FinetuneSettings, Objective
from dualtune_edge.export.finetune.train import RunData, opened, template_of, train
from dualtune_edge.export.finetune.whole_spec.planning import Planned
from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.frozen import Frozen

Outcome: TypeAlias = Literal["trained", "already trained", "no sample"]


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
