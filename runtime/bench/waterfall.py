"""One call as a picture: what ran when, a row an event, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.bench.report import CallRun, Span, StageRun
from dualtune_edge.runtime.bench.watched import EventKind
from dualtune_edge.toolkit.errors import OutputError

_WIDTH: Final = 960
_LABELS: Final = 210  # of the rows, at the left
_ROW: Final = 16
_TOP: Final = 56
_COLORS: Final[dict[EventKind, str]] = {
    "forward": "#2f6fb0",
    "use": "#c2571a",
    "restore": "#3d8f4b",
    "snapshot": "#8a8a8a",
}
_STAGE: Final = "#e6ecf3"


def write_waterfall(path: Path, call: CallRun) -> None:
    """Write the picture of a call.

    Raises:
        OutputError: the file cannot be written.

    """
    try:
        path.write_text(waterfall(call), encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(
            str(path), found=str(error), expected="a place to write", fix="Check the path and its permissions."
        ) from None


def waterfall(call: CallRun) -> str:
    """The picture of a call."""
    bottom = _TOP + _ROW * sum(1 + len(stage.spans) for stage in call.stages)
    height = bottom + 2 * _ROW
    called = f"{call.toolset}: {call.tool or 'no tool'}"
    legend = (
        f'<rect x="{_LABELS + 110 * at}" y="30" width="10" height="10" fill="{color}"/>'
        f'<text x="{_LABELS + 110 * at + 15}" y="39">{kind}</text>'
        for at, (kind, color) in enumerate(_COLORS.items())
    )
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(called)}: when each forward of the call ran, in milliseconds</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        '<g font-family="sans-serif" font-size="11">',
        f'<text x="8" y="18">{escape(called)}, {call.ms:.1f} ms</text>',
        *legend,
        *_axis(call.ms, bottom),
        *_rows(call),
        "</g>",
        "</svg>",
    )
    return "\n".join(lines) + "\n"


def _scale(ms: float) -> float:
    """Pixels a millisecond, with room for a time behind the last bar."""
    return (_WIDTH - _LABELS - 70) / max(ms, 1e-3)


def _axis(ms: float, bottom: int) -> Iterator[str]:
    """A line for each round number of milliseconds, at most ten."""
    scale, step = _scale(ms), _step(ms)
    for number in range(int(ms / step + 1e-9) + 1):
        at, unit = _LABELS + number * step * scale, "" if number else " ms"
        yield f'<path d="M{at:.1f} {_TOP} V{bottom + 4}" stroke="#ddd"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{number * step:g}{unit}</text>'


def _step(ms: float) -> float:
    """1, 2 or 5 times a power of ten: at most ten of them are as long as the call."""
    power = 10.0 ** math.floor(math.log10(max(ms, 1e-3) / 10))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 10 >= ms)


def _rows(call: CallRun) -> Iterator[str]:
    scale = _scale(call.ms)
    top, begin = _TOP, 0.0
    for stage in call.stages:
        bars = [(_title(stage), _STAGE, begin, stage.ms)]
        bars += [(_label(span), _COLORS[span.kind], span.start_ms, span.ms) for span in stage.spans]
        begin += stage.ms
        for label, color, start, ms in bars:
            left, width = _LABELS + start * scale, max(ms * scale, 1.0)
            yield f'<text x="8" y="{top + 11}">{escape(label)}</text>'
            yield f'<rect x="{left:.1f}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 4}" fill="{color}"/>'
            yield f'<text x="{left + width + 4:.1f}" y="{top + 11}" fill="#555">{ms:.1f}</text>'
            top += _ROW


def _title(stage: StageRun) -> str:
    return f"{stage.stage}: {stage.prompt} tokens, {stage.reused} reused"


def _label(span: Span) -> str:
    return f"\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}{span.kind}" + (f" {span.tokens}" if span.kind == "forward" else "")
