"""Recorded tasks replayed: what each turn takes, and how much is computed for what the conversation grew by.

The model is made to decide as the recording does, and the recorded results stand in the conversation. So every run of a
task does the same work, whatever the weights say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.runtime.bench.measure import where_of
from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.report import TaskReport, TaskRun, TaskTurn
from dualtune_edge.runtime.bench.requests import Request, read_tasks
from dualtune_edge.runtime.bench.roofline import measure_roofline
from dualtune_edge.runtime.bench.watched import watch
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import EngineKind, open_engine
from dualtune_edge.runtime.trust.policy import Trust
from dualtune_edge.runtime.variants import Ways
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.prompter import common_prefix


@dataclass(frozen=True)
class WantedTasks:
    """What is to be replayed: at most `count` of the conversations in a file, spread evenly over it."""

    engine: EngineKind
    file: Path
    count: int
    trust: Trust | None = None


def bench_tasks(
    path: Path, resolve: Callable[[Bundle], Ways], wanted: WantedTasks, on_step: Callable[[str], None]
) -> TaskReport:
    """Replay tasks on a bundle.

    Args:
        path: its folder.
        resolve: how it can run here; the best way is measured.
        wanted: what to replay.
        on_step: is called with the name of each step before it begins.

    Raises:
        BundleError: no bundle, or a damaged one.
        DataError: the file cannot be read or has no conversation of several turns, or a call does not fit its schema.
        EngineError: the engine fails.

    """
    on_step("opening")
    best = resolve(open_bundle(path, trust=wanted.trust)).best
    bundle = best.bundle
    tasks = read_tasks(wanted.file, bundle.manifest, wanted.count)
    if not tasks:
        raise DataError(
            str(wanted.file),
            found="no conversation with several turns of the assistant",
            expected="one or more to replay",
            fix="Record a task: the calls that it makes, and their results.",
        )
    with open_engine(bundle.model, best.resolution.settings, wanted.engine) as engine:
        watched = watch(engine)
        replay = Replay(bundle, watched, measure_roofline(bundle, best.resolution.settings.intra_op_threads))
        runs = []
        for number, task in enumerate(tasks, start=1):
            on_step(f"task {number} of {len(tasks)}")
            runs.append(replay_task(bundle, replay, task))
        return TaskReport(
            where=where_of(best.resolution, wanted.engine, watched.placement),
            base=bundle.manifest.base.name,
            tasks=tuple(runs),
            states_bytes=sum(entry.nbytes for entry in bundle.entry.states),
            kept_bytes=replay.kept_bytes,
        )


def replay_task(bundle: Bundle, replay: Replay, task: Sequence[Request]) -> TaskRun:
    """Replay one task, after a call of each kind in other words: what a first call prepares is no part of it."""
    for request in task:
        replay.warm(request)
    turns = []
    before: dict[str, tuple[int, ...]] = {}  # stage → its latest prompt
    for request in task:
        ms, readings = replay.turn(request)
        grown = []
        for reading in readings:
            prefix = before.get(reading.stage, _prefix(bundle, request, reading.stage))
            grown.append(len(reading.prompt) - len(common_prefix([prefix, reading.prompt])))
            before[reading.stage] = reading.prompt
        turns.append(
            TaskTurn(
                request=request.where,
                ms=ms,
                new=max(grown),
                read=sum(reading.read for reading in readings),
                roofline_ms=round(sum(reading.roofline_ms for reading in readings), 3),
            )
        )
    return TaskRun(turns=tuple(turns))


def _prefix(bundle: Bundle, request: Request, stage: str) -> tuple[int, ...]:
    """The static prefix of a request's stage."""
    entry = bundle.toolset(request.toolset)
    if stage == "arguments" and request.call:
        return bundle.plan(entry.arguments[request.call.name]).prefix
    choice = bundle.manifest.toolset_choice
    return bundle.plan(choice if stage == "toolset" and choice else entry.selection).prefix
