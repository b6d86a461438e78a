"""An evaluation of tasks as one HTML page: nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from dualtune_edge.runtime.evaluate.page import bar, document
from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation, TaskSide
from dualtune_edge.runtime.evaluate.tasks.text import group_rows
from dualtune_edge.runtime.evaluate.text import difference, signature_of
from dualtune_edge.toolkit.console import printable


def tasks_page(report: TaskEvaluation) -> str:
    """The whole page."""
    title = f"{report.ours.name}: {len(report.ours.results)} tasks of {report.tasks}"
    return document(title, (*_groups(report), *_results(report.ours)))


def _groups(report: TaskEvaluation) -> Iterator[str]:
    other = f"<th>{escape(report.against.other.name)}</th>" if report.against else ""
    ours = escape(report.ours.name)
    yield f"<table><tr><th>done, with 95% intervals</th><th></th><th>of</th><th>{ours}</th>{other}"
    yield "<th>right calls</th></tr>"
    for group, (name, of, done, theirs, right) in zip(report.ours.groups, group_rows(report), strict=True):
        cell = f"<td>{theirs}</td>" if report.against else ""
        yield f"<tr><td>{escape(name)}</td><td>{bar(group.done)}</td><td>{of}</td><td>{done}</td>{cell}"
        yield f"<td>{right}</td></tr>"
    yield "</table>"
    if report.against:
        yield f"<p>{escape(difference('tasks done', report.against.done))}</p>"


def _results(side: TaskSide) -> Iterator[str]:
    """Those that are not done, by kind, then those that are."""
    for faults in side.faults:
        yield f"<p>{faults.count} not done: {escape(faults.kind)}</p>"
    for title, done in (("Not done", False), ("Done", True)):
        yield f"<h2>{title}</h2>"
        for result in side.results:
            if result.done == done:
                calls = "".join(
                    f"<br><code>{escape(signature_of(call.call, call.arguments))}</code> {call.state}"
                    for call in result.calls
                )
                why = "".join(f"<br>{escape(printable(fault))}" for fault in result.faults)
                yield (
                    f"<p><b>{escape(result.task)}</b> {escape(printable(result.request))}{calls}"
                    f"<br>{escape(result.outcome)}: {escape(printable(result.answer))}{why}</p>"
                )
