"""An evaluation for a reader at a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dualtune_edge.runtime.evaluate.answers import Call
from dualtune_edge.runtime.evaluate.report import Comparison, Evaluation, Side
from dualtune_edge.runtime.evaluate.statistics import Calibration, Difference, Share
from dualtune_edge.toolkit.console import printable, table_lines

_PROPERTIES: Final = 10  # of the arguments, the worst
SAID: Final = 120  # characters of a message


def describe(report: Evaluation) -> str:
    """Scores, arguments, probabilities and errors."""
    lines = [f"{report.turns} turns of {report.data}", "", *_scores(report)]
    lines += _properties(report.ours)
    if report.ours.calibration:
        lines += _calibration(report.ours.calibration)
    for mistakes in report.ours.mistakes:
        lines += ["", f"{mistakes.count} wrong: {mistakes.kind}"]
        for example in mistakes.examples:
            found = signature(example.answer) if example.answer else example.refusal
            lines += [
                f"  {example.where}: {printable(example.said)[:SAID]}",
                f"    expected {signature(example.expected)}",
                f"    answered {printable(found)}  {example.probability:.0%}",
            ]
    return "\n".join(lines)


def rows(report: Evaluation) -> list[tuple[str, Share, Share | None]]:
    """(what, ours, the other side's) of every score."""
    ours, other = report.ours.scores, report.against.other.scores if report.against else None
    names = {
        "whole answer": "answers",
        "toolset": "toolsets",
        "tool": "tools",
        "whole call": "calls",
        "toolset and call": "routed_calls",
        "no tool where none is needed": "abstentions",
        "some tool where one is needed": "needed",
    }
    return [
        (what, getattr(ours, name), getattr(other, name) if other else None)
        for what, name in names.items()
        if getattr(ours, name) is not None
    ]


def percent(share: Share) -> str:
    """`56.5% (52.4–60.5)`."""
    return f"{share.share:.1%} ({100 * share.low:.1f}–{100 * share.high:.1f})" if share.of else "none"


def signature(call: Call) -> str:
    """`git > git_log(max_count=3)`."""
    if call.tool is None:
        return "no tool"
    return signature_of(f"{call.toolset} > {call.tool}", call.arguments or {})


def signature_of(name: str, arguments: Mapping[str, Any]) -> str:
    """A call's name with its arguments in JSON."""
    values = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return printable(f"{name}({values})")


def difference(what: str, gap: Difference) -> str:
    """`tools: 3.2 points more (0.4–6.0); …`."""
    points = f"{100 * gap.difference:+.1f} points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    return f"{what}: {points}; right here only {gap.only_ours}, there only {gap.only_theirs}"


def calibration_error(calibration: Calibration) -> str:
    """How far probabilities are from the share of right answers."""
    return f"probabilities: off by {calibration.error:.3f} in the mean (expected calibration error)"


def _scores(report: Evaluation) -> Iterator[str]:
    against: Comparison | None = report.against
    columns = ("right", report.ours.name, "of", *((against.other.name,) if against else ()))
    cells = (
        (what, percent(ours), str(ours.of), *((percent(theirs) if theirs else "",) if against else ()))
        for what, ours, theirs in rows(report)
    )
    yield from table_lines(columns, cells, left={"right"})
    if against:
        yield ""
        yield difference("tools", against.tools)
        yield difference("whole answers", against.right)


def _properties(side: Side) -> Iterator[str]:
    worst = [score for score in side.properties if score.right.right < score.right.of][:_PROPERTIES]
    if not worst:
        return
    yield ""
    columns = ("argument, the worst first", "right", "of", "wrong", "missing", "extra")
    cells = (
        (
            f"{score.toolset}.{score.tool}.{score.name}",
            f"{score.right.share:.1%}",
            *map(str, (score.right.of, score.wrong, score.missing, score.extra)),
        )
        for score in worst
    )
    yield from table_lines(columns, cells, left={columns[0]})


def _calibration(calibration: Calibration) -> Iterator[str]:
    yield ""
    yield calibration_error(calibration)
    suggested = calibration.suggested
    if suggested is None:
        yield f"no min_probability leaves calls that are right in {100 * calibration.aim:g}%"
        return
    kept = suggested.kept
    yield (
        f"min_probability {suggested.min_probability:.4f} leaves {kept.of} of {suggested.of} calls, of which"
        f" {percent(kept)} are right"
    )
