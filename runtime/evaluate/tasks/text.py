"""An evaluation of tasks for a reader at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation
from dualtune_edge.runtime.evaluate.text import SAID, difference, percent
from dualtune_edge.toolkit.console import printable, table_lines


def describe_tasks(report: TaskEvaluation) -> str:
    """Shares of tasks that were done, and why others were not."""
    lines = [f"{len(report.ours.results)} tasks of {report.tasks}", "", *_groups(report)]
    for faults in report.ours.faults:
        lines += ["", f"{faults.count} not done: {faults.kind}"]
        for example in faults.examples:
            lines += [
                f"  {example.task}: {printable(example.request)[:SAID]}",
                f"    called {printable(', '.join(example.calls) or 'nothing')}; ended: {example.outcome}",
                f"    {printable(example.fault)[:SAID]}",
            ]
    return "\n".join(lines)


def group_rows(report: TaskEvaluation) -> Iterator[tuple[str, str, str, str, str]]:
    """(group, tasks, done, done by the other side, right calls) of every group."""
    theirs = {group.name: group for group in report.against.other.groups} if report.against else {}
    for group in report.ours.groups:
        other = percent(theirs[group.name].done) if theirs else ""
        right = f"{group.gold_calls.right} of {group.gold_calls.of}; made {group.calls}"
        yield group.name, str(group.done.of), percent(group.done), other, right


def _groups(report: TaskEvaluation) -> Iterator[str]:
    other = (report.against.other.name,) if report.against else ()
    columns = ("tasks", "of", report.ours.name, *other, "right calls")
    cells = (
        (name, of, done, *((theirs,) if other else ()), right) for name, of, done, theirs, right in group_rows(report)
    )
    yield from table_lines(columns, cells, left={"tasks"})
    if report.against:
        yield ""
        yield difference("tasks done", report.against.done)
