"""Results of tasks, counted by the number of calls that they need and by the toolsets on offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from checkable.running import TaskResult
from dualtune_edge.toolkit.frozen import Frozen

_COLUMNS: Final = ("filesystem", "git", "filesystem and git", "one call", "two calls", "three or four calls", "all")


class Total(Frozen):
    """Of a group: tasks that were done, gold calls that were made, and calls of any kind."""

    tasks: int
    done: int
    gold_calls: int
    gold_calls_made: int
    calls: int


def totals(results: Sequence[TaskResult]) -> dict[str, Total]:
    """The groups that have a task, and `all`."""
    groups = {
        "one call": [result for result in results if result.gold == 1],
        "two calls": [result for result in results if result.gold == 2],
        "three or four calls": [result for result in results if result.gold > 2],
    }
    for toolsets in dict.fromkeys(result.toolsets for result in results):
        groups[" and ".join(toolsets)] = [result for result in results if result.toolsets == toolsets]
    groups["all"] = list(results)
    return {name: _total(group) for name, group in groups.items() if group}


def table(methods: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """A row a method: the share of the tasks that were done in each group, in percent, and the gold calls made.

    Every method did the same tasks.
    """
    counted = {method: totals(results) for method, results in methods.items()}
    first = next(iter(counted.values()))
    columns = [name for name in _COLUMNS if name in first]
    heads = [f"{name} ({first[name].tasks})" for name in columns]
    lines = [f"| adapters | {' | '.join(heads)} | right calls |", f"|---|{'---:|' * (len(columns) + 1)}"]
    for method, groups in counted.items():
        shares = [f"{100 * groups[name].done / groups[name].tasks:.1f}" for name in columns]
        whole = groups["all"]
        lines.append(f"| {method} | {' | '.join(shares)} | {whole.gold_calls_made} of {whole.gold_calls} |")
    return lines


def _total(group: Sequence[TaskResult]) -> Total:
    return Total(
        tasks=len(group),
        done=sum(result.ok for result in group),
        gold_calls=sum(result.gold for result in group),
        gold_calls_made=sum(result.matched for result in group),
        calls=sum(len(result.calls) for result in group),
    )
