"""What runs will take, before they start: some of their steps are tried, and not made.

Time is that of the tried steps, by the tokens of all steps and measurements. Memory is that of the largest step, with
what the optimizer and the best step will hold besides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from dualtune_edge.export.finetune.batches import part_cost, right_and_loss, summed_loss
from dualtune_edge.export.finetune.loading.base import Base, free_on_gpu
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.export.finetune.samples.make import Samples
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.export.finetune.settings import FinetuneSettings, Objective
from dualtune_edge.export.finetune.train import PreparedRun, RunData, prepared
from dualtune_edge.export.work import room
from dualtune_edge.export.work.memory import PeakMemory, give_back
from dualtune_edge.toolkit.frozen import Frozen

_STEPS: Final = 500  # whose batches are looked at; more are taken to be like them
_LONG: Final = 10.0  # seconds of the largest part: where it takes less, steps are timed, with all in the caches
_ENOUGH: Final = 2.0  # seconds of these steps
_TIMED: Final = 5  # steps at most
_LARGER: Final = 1.5  # times the tokens of the pass that was measured: measured again


class RunEstimate(Frozen):
    """One adapter. `steps`: that are left. `memory`: bytes at most, of the process or the GPU; null: not known."""

    output: str
    objective: Objective
    tool: str | None
    toolset: str | None
    samples: int
    held_out: int
    steps: int
    seconds: float
    memory: int | None
    warnings: tuple[str, ...]  # about the samples


class Estimate(Frozen):
    """What the runs take, one after the other. `memory_free`: bytes that the process, or the GPU, can still take."""

    adapters: tuple[RunEstimate, ...]
    seconds: float
    memory: int | None
    memory_free: int | None


def estimate(runs: Sequence[RunData], base: Base, processes: Processes) -> Estimate:
    """Measure a step of each objective.

    Args:
        runs: of one base; those that have a checkpoint with `resume`.
        base: the runs' base.
        processes: those of the runs.

    Raises:
        EdgeError: as for `prepared`, of any of the runs.

    """
    free = _free(base.model.device)
    paces: dict[Objective, _Pace] = {}
    adapters = []
    for data in runs:
        objective = data.settings.objective
        with prepared(data, base, processes) as run:
            work = _Work.of(run, data.samples)
            pace = paces.get(objective)
            # The first adapter of an objective may have nothing held out, and the next one something.
            if pace is None or work.cost > _LARGER * pace.cost or (work.measured and not pace.measured):
                pace = paces[objective] = _measure(run, work, data.settings)
            adapters.append(_of_run(data, run, work, pace))
    memories = [adapter.memory for adapter in adapters if adapter.memory is not None]
    return Estimate(
        adapters=tuple(adapters),
        seconds=sum(adapter.seconds for adapter in adapters),
        memory=max(memories, default=None),
        memory_free=free,
    )


@dataclass(frozen=True)
class _Work:
    """What is left of a run, in the tokens of `part_cost`.

    `learnt`: forward and backward. `measured`: forward alone. `steps`: the parts of the next ones. `largest`: the part
    that costs most. `cost`: what such a one does. All numbers are those of the process that has most to do.
    """

    learnt: float
    measured: float
    steps: Sequence[Sequence[Sequence[Sample]]]
    largest: Sequence[Sample]
    cost: int

    @classmethod
    def of(cls, run: PreparedRun, samples: Samples) -> _Work:
        """Of a run that is prepared."""
        trainer = run.trainer
        prefix, left = len(trainer.prefix), trainer.steps - trainer.done
        schedule = trainer.schedule(_STEPS)
        parts = [part for step in schedule for part in step] or [list(samples.samples[:1])]
        costs = [part_cost(part, prefix) for part in parts]
        held = sum(part_cost(part, len(trainer.held_out.prefix)) for part in trainer.held_out.parts()[0])
        times = sum(trainer.held_out.due(step, trainer.steps) for step in range(trainer.done + 1, trainer.steps + 1))
        largest = max(range(len(parts)), key=costs.__getitem__)
        return cls(
            learnt=trainer.processes.largest(sum(costs) * left / max(len(schedule), 1)),
            measured=trainer.processes.largest(float(held * times)),
            steps=schedule[:_TIMED] or [parts],
            largest=parts[largest],
            cost=int(trainer.processes.largest(costs[largest])),
        )


@dataclass(frozen=True)
class _Pace:
    """What steps of an objective take. `learnt`, `measured`: seconds a token. `held`: bytes before a step.

    `taken`: bytes that the largest step took besides, and `cost` its tokens.
    """

    learnt: float
    measured: float
    held: int
    taken: int
    cost: int


def _measure(run: PreparedRun, work: _Work, settings: FinetuneSettings) -> _Pace:
    """Compute the largest part of a step and then the next steps, and throw the gradients away."""
    model, prefix = run.trainer.model, run.trainer.prefix
    invocation, state, slowest = run.trainer.invocation, run.trainer.base_state, run.trainer.processes.largest

    def learn(part: Sequence[Sample]) -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.autocast):
            loss = summed_loss(model, prefix, part, invocation, state)
        torch.autograd.backward(loss)

    def look(part: Sequence[Sample]) -> None:
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=settings.autocast):
            right_and_loss(model, prefix, part, invocation, state)

    model.train()
    give_back()
    held = _held(model.device)
    with _peak(model.device) as peak:
        seconds, cost = slowest(_timed(learn, [work.largest], model)), work.cost
        taken = max(peak() - held, 0)
    if seconds < _LONG:
        seconds, cost = 0.0, 0
        for step in work.steps:
            seconds, cost = slowest(seconds + _timed(learn, step, model)), cost + _cost(step, prefix)
            if seconds > _ENOUGH:
                break
    forward = slowest(_timed(look, work.steps[0], model)) if work.measured else 0.0
    model.zero_grad(set_to_none=True)
    first = _cost(work.steps[0], prefix)
    return _Pace(seconds / max(cost, 1), forward / max(first, 1), held, taken, work.cost)


def _cost(parts: Sequence[Sequence[Sample]], prefix: Sequence[int]) -> int:
    return sum(part_cost(part, len(prefix)) for part in parts)


def _timed(compute: Callable[[Sequence[Sample]], None], parts: Sequence[Sequence[Sample]], model: Any) -> float:
    """Seconds that all parts take."""
    start = time.perf_counter()
    for part in parts:
        compute(part)
    if model.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def _of_run(data: RunData, run: PreparedRun, work: _Work, pace: _Pace) -> RunEstimate:
    settings, samples = data.settings, data.samples
    memory = pace.held + pace.taken * work.cost // pace.cost + run.trainer.later_bytes
    known = run.adapted.device.type == "cpu" or pace.held > 0
    return RunEstimate(
        output=str(settings.output),
        objective=settings.objective,
        tool=settings.tool,
        toolset=settings.own_toolset or settings.toolset,
        samples=len(samples.samples),
        held_out=len(samples.held),
        steps=run.trainer.steps - run.trainer.done,
        seconds=work.learnt * pace.learnt + work.measured * pace.measured,
        memory=memory if known else None,
        warnings=samples.warnings,
    )


def _held(device: torch.device) -> int:
    """Bytes that the process holds, or what it holds of the GPU; 0 where PyTorch does not count them."""
    if device.type == "cpu":
        return room.resident()
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return int(torch.accelerator.memory_allocated())
    return 0


def _free(device: torch.device) -> int | None:
    """Bytes that the process can take altogether: with those that it holds already."""
    if device.type == "cpu":
        return room.free_memory() + room.resident()
    return free_on_gpu()


@contextlib.contextmanager
def _peak(device: torch.device) -> Iterator[Callable[[], int]]:
    """What says the most bytes that were held since the block began."""
    if device.type != "cpu":
        with contextlib.suppress(RuntimeError, NotImplementedError):
            torch.accelerator.reset_peak_memory_stats()
        yield _accelerator_peak
        return
    memory = PeakMemory()
    memory.start()
    memory.reset()
    try:
        yield memory.peak
    finally:
        memory.stop()


def _accelerator_peak() -> int:
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return int(torch.accelerator.max_memory_allocated())
    return 0
