"""The table of what several bundles made of the same tasks."""

from __future__ import annotations

from collections.abc import Mapping

from dualtune_edge.runtime.evaluate.tasks.report import TaskSide


def table(methods: Mapping[str, TaskSide]) -> list[str]:
    """A row a method: the share of the tasks that were done in each group, in percent, and the gold calls made."""
    names = [group.name for group in next(iter(methods.values())).groups]
    heads = [f"{group.name} ({group.done.of})" for group in next(iter(methods.values())).groups]
    lines = [f"| adapters | {' | '.join(heads)} | right calls |", f"|---|{'---:|' * (len(names) + 1)}"]
    for method, side in methods.items():
        shares = [f"{100 * group.done.share:.1f}" for group in side.groups]
        whole = side.groups[-1].gold_calls
        lines.append(f"| {method} | {' | '.join(shares)} | {whole.right} of {whole.of} |")
    return lines
