"""What an evaluation of tasks found, as values: `evaluate --tasks … --json` prints a `TaskEvaluation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, get_args

from dualtune_edge.runtime.evaluate.report import EXAMPLES, refuse_others
from dualtune_edge.runtime.evaluate.statistics import Difference, Share
from dualtune_edge.runtime.evaluate.tasks.running import TaskResult
from dualtune_edge.toolkit.frozen import Frozen

FaultKind: TypeAlias = Literal[
    "no call",
    "a call was not allowed",
    "not finished",
    "a call failed",
    "not its gold calls",
    "what is checked is not so",
]


class TaskGroup(Frozen):
    """Some of the tasks: those that are done; gold calls that were made; and calls of any kind."""

    name: str
    done: Share
    gold_calls: Share
    calls: int


class Fault(Frozen):
    """A task that is not done: what was asked, what was called, how it ended, and the first thing that is wrong."""

    task: str
    request: str
    calls: tuple[str, ...]
    outcome: str
    fault: str


class Faults(Frozen):
    """Tasks that are not done, of one kind, with the first few of them."""

    kind: FaultKind
    count: int
    examples: tuple[Fault, ...]


class TaskSide(Frozen):
    """One bundle over all tasks; the last group is all of them."""

    name: str
    manifest_sha256: str
    groups: tuple[TaskGroup, ...]
    faults: tuple[Faults, ...]
    results: tuple[TaskResult, ...]


class TaskComparison(Frozen):
    """The other side, and by how much ours does more tasks."""

    other: TaskSide
    done: Difference


class TaskEvaluation(Frozen):
    """What `evaluate --tasks … --json` prints."""

    tasks: str
    ours: TaskSide
    against: TaskComparison | None


def task_side(name: str, manifest_sha256: str, results: Sequence[TaskResult]) -> TaskSide:
    """What one bundle's tasks come to."""
    return TaskSide(
        name=name,
        manifest_sha256=manifest_sha256,
        groups=tuple(groups(results)),
        faults=tuple(_faults(results)),
        results=tuple(results),
    )


def compare_tasks(ours: TaskSide, other: TaskSide) -> TaskComparison:
    """Both sides on the same tasks.

    Raises:
        DataError: they did others.

    """
    names, others = ([result.task for result in side.results] for side in (ours, other))
    refuse_others(names, others, other.name)
    states = ([result.done for result in side.results] for side in (ours, other))
    return TaskComparison(other=other, done=Difference.paired(*states))


def groups(results: Sequence[TaskResult]) -> Iterator[TaskGroup]:
    """By the toolsets on offer, by the calls that are needed, and all; groups without a task are left out."""
    for toolsets in dict.fromkeys(result.toolsets for result in results):
        yield _group(" and ".join(toolsets), [result for result in results if result.toolsets == toolsets])
    counted = (
        ("one call", [result for result in results if result.gold == 1]),
        ("two calls", [result for result in results if result.gold == 2]),
        ("three calls or more", [result for result in results if result.gold > 2]),
    )
    yield from (_group(name, group) for name, group in counted if group)
    yield _group("all", results)


def _group(name: str, results: Sequence[TaskResult]) -> TaskGroup:
    matched = [number < result.matched for result in results for number in range(result.gold)]
    calls = sum(len(result.calls) for result in results)
    return TaskGroup(
        name=name,
        done=Share.count([result.done for result in results]),
        gold_calls=Share.count(matched),
        calls=calls,
    )


def _faults(results: Sequence[TaskResult]) -> Iterator[Faults]:
    """The most frequent kind first."""
    kinds = {kind: [result for result in results if _kind(result) == kind] for kind in get_args(FaultKind)}
    for kind, failed in sorted(kinds.items(), key=lambda item: -len(item[1])):
        if failed:
            yield Faults(kind=kind, count=len(failed), examples=tuple(_fault(result) for result in failed[:EXAMPLES]))


def _fault(result: TaskResult) -> Fault:
    calls = tuple(call.call for call in result.calls)
    first = result.faults[0]
    return Fault(task=result.task, request=result.request, calls=calls, outcome=result.outcome, fault=first)


def _kind(result: TaskResult) -> FaultKind | None:
    """The first of these that is so; None for a task that is done."""
    if result.done:
        return None
    states = {call.state for call in result.calls}
    found: tuple[tuple[FaultKind, bool], ...] = (
        ("no call", not result.calls),
        ("a call was not allowed", "denied" in states),
        ("not finished", result.outcome != "answered"),
        ("a call failed", "failed" in states),
        ("not its gold calls", result.matched < result.gold),
    )
    return next((kind for kind, so in found if so), "what is checked is not so")
