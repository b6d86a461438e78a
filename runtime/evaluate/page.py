"""An evaluation as one HTML page with its pictures in it: nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.evaluate.report import Confusion, Evaluation, Side
from dualtune_edge.runtime.evaluate.statistics import Calibration, Share, Threshold
from dualtune_edge.runtime.evaluate.text import calibration_error, difference, percent, rows, signature
from dualtune_edge.toolkit.console import printable
from dualtune_edge.toolkit.files import replace_file, unwritable

_SIZE: Final = 320  # of a picture, in units of its viewBox
_LEFT: Final = 40  # of the axes
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}code{font-size:.9em;overflow-wrap:anywhere}
svg{width:20rem;max-width:100%;margin-right:1rem}svg text{font-size:11px}figure{display:inline-block;margin:0}
.matrix{display:block;overflow-x:auto}.matrix td{text-align:center;border:0}.matrix th{font-weight:400;font-size:.8em}
"""


def write_page(path: Path, page: str) -> None:
    """Write a page, or leave what is there. A link is followed, and a pipe or a device is written into.

    Raises:
        OutputError, RoomError: it cannot be written.

    """
    try:
        if _is_no_file(path):
            path.write_bytes(page.encode())
        else:
            replace_file(path.resolve(), page.encode())
    except OSError as error:
        raise unwritable(path, error) from None


def refuse_unwritable(path: Path) -> None:
    """Refuse a page that could not be written at the end. What is there stays.

    Raises:
        OutputError: it cannot be written.

    """
    try:
        if _is_no_file(path):
            return  # whoever reads it would take the end of a trial for that of the page
        there = path.exists()
        path.open("ab").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise unwritable(path, error) from None


def _is_no_file(path: Path) -> bool:
    """Whether a pipe or a device stands there, in whose place a file must not come."""
    return path.exists() and not path.is_file() and not path.is_dir()


def page(report: Evaluation) -> str:
    """The whole page."""
    parts = [*_scores(report), *_pictures(report.ours), *_matrices(report.ours)]
    parts += [*_properties(report.ours), *_mistakes(report.ours)]
    return document(f"{report.ours.name}: {report.turns} turns of {report.data}", parts)


def document(title: str, parts: Iterable[str]) -> str:
    """A page of its title and parts in HTML."""
    title = escape(title)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f"{head}<body><h1>{title}</h1>{''.join(parts)}</body></html>\n"


def _scores(report: Evaluation) -> Iterator[str]:
    other = f"<th>{escape(report.against.other.name)}</th>" if report.against else ""
    ours_name = escape(report.ours.name)
    yield f"<table><tr><th>right, with 95% intervals</th><th></th><th>{ours_name}</th><th>of</th>{other}</tr>"
    for what, ours, theirs in rows(report):
        cell = f"<td>{percent(theirs) if theirs else ''}</td>" if report.against else ""
        yield f"<tr><td>{what}</td><td>{bar(ours)}</td><td>{percent(ours)}</td><td>{ours.of}</td>{cell}</tr>"
    yield "</table>"
    if report.against:
        yield f"<p>{escape(difference('tools', report.against.tools))}<br>"
        yield f"{escape(difference('whole answers', report.against.right))}</p>"


def bar(share: Share) -> str:
    """A share and its interval as a picture."""
    low, high, at = (100 * value for value in (share.low, share.high, share.share))
    return (
        '<svg viewBox="0 0 100 10" style="width:8rem;height:.8rem" role="img">'
        '<rect width="100" height="10" fill="#eceff3"/>'
        f'<rect width="{at:.1f}" height="10" fill="#4c78a8"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="5" y2="5" stroke="#1b1f24"/></svg>'
    )


def _pictures(side: Side) -> Iterator[str]:
    if side.calibration is None:
        return
    suggested = side.calibration.suggested
    yield f"<h2>Probabilities</h2><p>{escape(calibration_error(side.calibration))}</p>"
    yield _figure("probability of the answer", "right", _reliability(side.calibration))
    if side.curve:
        yield _figure("calls that are left", "of these, right", _curve(side.curve, side.calibration.aim))
    if suggested:
        yield (
            f"<p><code>min_probability</code> {suggested.min_probability:.4f} leaves {suggested.kept.of} of"
            f" {suggested.of} calls, of which {percent(suggested.kept)} are right.</p>"
        )
    else:
        yield f"<p>No <code>min_probability</code> leaves calls that are right in {100 * side.calibration.aim:g}%.</p>"


def _figure(across: str, up: str, marks: str) -> str:
    """Axes from 0 to 1 with marks in them."""
    ticks = "".join(
        f'<text x="{_x(tick / 4):.0f}" y="{_SIZE - 22}" text-anchor="middle">{tick / 4:g}</text>'
        f'<text x="{_LEFT - 5}" y="{_y(tick / 4) + 4:.0f}" text-anchor="end">{tick / 4:g}</text>'
        f'<line x1="{_x(0):.0f}" x2="{_x(1):.0f}" y1="{_y(tick / 4):.0f}" y2="{_y(tick / 4):.0f}" stroke="#e3e6ea"/>'
        for tick in range(5)
    )
    names = (
        f'<text x="{_x(0.5):.0f}" y="{_SIZE - 6}" text-anchor="middle">{across}</text>'
        f'<text transform="translate(11 {_y(0.5):.0f}) rotate(-90)" text-anchor="middle">{up}</text>'
    )
    return f'<figure><svg viewBox="0 0 {_SIZE} {_SIZE}" role="img">{ticks}{names}{marks}</svg></figure>'


def _reliability(calibration: Calibration) -> str:
    """A point a bin with its interval, and the line where they should be."""
    marks = [f'<line x1="{_x(0):.1f}" y1="{_y(0):.1f}" x2="{_x(1):.1f}" y2="{_y(1):.1f}" stroke="#9aa3ad"/>']
    for entry in calibration.bins:
        at, right = _x(entry.probability), entry.right
        title = f"<title>{right.right} of {right.of} are right</title>"
        marks.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_y(right.low):.1f}" y2="{_y(right.high):.1f}" stroke="#4c78a8"/>'
            f'<circle cx="{at:.1f}" cy="{_y(right.share):.1f}" r="4" fill="#4c78a8">{title}</circle>'
        )
    return "".join(marks)


def _curve(points: tuple[Threshold, ...], aim: float) -> str:
    path = " ".join(f"{_x(point.kept.of / point.of):.1f},{_y(point.kept.share):.1f}" for point in points)
    dots = "".join(
        f'<circle cx="{_x(point.kept.of / point.of):.1f}" cy="{_y(point.kept.share):.1f}" r="3" fill="#4c78a8">'
        f"<title>min_probability {point.min_probability:.4f}</title></circle>"
        for point in points
    )
    line = f'<line x1="{_x(0):.1f}" x2="{_x(1):.1f}" y1="{_y(aim):.1f}" y2="{_y(aim):.1f}" stroke="#e45756"/>'
    return f'{line}<polyline points="{path}" fill="none" stroke="#4c78a8"/>{dots}'


def _x(share: float) -> float:
    return _LEFT + share * (_SIZE - _LEFT - 10)


def _y(share: float) -> float:
    return 10 + (1 - share) * (_SIZE - _LEFT - 10)


def _matrices(side: Side) -> Iterator[str]:
    for toolset in dict.fromkeys(entry.toolset for entry in side.confusions):
        yield from _matrix(toolset, [entry for entry in side.confusions if entry.toolset == toolset])


def _matrix(toolset: str, entries: list[Confusion]) -> Iterator[str]:
    """A row an expected tool, a column an answered one."""
    counts = {(entry.expected, entry.answered): entry.count for entry in entries}
    names = sorted({name for pair in counts for name in pair}, key=lambda name: (name is None, name or ""))
    heads = "".join(f"<th>{escape(name or 'no tool')}</th>" for name in names)
    yield f"<h2>{escape(toolset)}: expected (rows) and answered (columns)</h2>"
    yield f'<table class="matrix"><tr><th></th>{heads}</tr>'
    for expected in names:
        total = sum(counts.get((expected, answered), 0) for answered in names)
        cells = "".join(_cell(counts.get((expected, name), 0), total, right=name == expected) for name in names)
        yield f"<tr><th>{escape(expected or 'no tool')}</th>{cells}</tr>"
    yield "</table>"


def _cell(count: int, total: int, *, right: bool) -> str:
    if not count:
        return "<td></td>"
    colour = "76,120,168" if right else "228,87,86"
    return f'<td style="background:rgba({colour},{0.15 + 0.7 * count / total:.2f})">{count}</td>'


def _properties(side: Side) -> Iterator[str]:
    if not side.properties:
        return
    yield "<h2>Arguments, the worst first</h2><table><tr><th>argument</th><th>right</th><th>of</th><th>wrong</th>"
    yield "<th>missing</th><th>extra</th></tr>"
    for score in side.properties:
        name = escape(f"{score.toolset}.{score.tool}.{score.name}")
        counts = "".join(f"<td>{count}</td>" for count in (score.right.of, score.wrong, score.missing, score.extra))
        yield f"<tr><td>{name}</td><td>{percent(score.right)}</td>{counts}</tr>"
    yield "</table>"


def _mistakes(side: Side) -> Iterator[str]:
    for mistakes in side.mistakes:
        yield f"<h2>{mistakes.count} wrong: {mistakes.kind}</h2>"
        for example in mistakes.examples:
            found = signature(example.answer) if example.answer else example.refusal
            yield (
                f"<p>{escape(printable(example.said))}<br>expected <code>{escape(signature(example.expected))}</code>"
                f"<br>answered <code>{escape(printable(found))}</code> {example.probability:.0%}"
                f"<br><small>{escape(example.where)}</small></p>"
            )
