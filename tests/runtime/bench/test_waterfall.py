import re
from xml.etree import ElementTree as ET

import pytest

from dualtune_edge.runtime.bench.report import CallRun, Span, StageRun
from dualtune_edge.runtime.bench.waterfall import waterfall

SVG = "{http://www.w3.org/2000/svg}"


def call(ms: float, tool: str = "read") -> CallRun:
    spans = (Span(kind="restore", start_ms=0, ms=ms / 10, tokens=0), Span(kind="forward", start_ms=0, ms=ms, tokens=9))
    stage = StageRun(
        stage="selection", adapter=None, ms=ms, prompt=9, reused=0, forced=0, drafted=0, decided=1, forwards=1,
        roofline_ms=0.0, spans=spans,
    )  # fmt: skip
    return CallRun(
        request="r", toolset="files", tool=tool, arguments={}, right=True, ms=ms, naive_ms=ms, same=True, notes=(),
        stages=(stage,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ms", "ticks"),
    [
        (95.0, [str(tick) for tick in range(0, 91, 10)]),
        (100.0, [str(tick) for tick in range(0, 101, 10)]),
        (101.0, ["0", "20", "40", "60", "80", "100"]),
        (4_321.0, [str(tick) for tick in range(0, 4_001, 500)]),
        (0.3, ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]),
        (0.0, ["0"]),
    ],
)
def test_its_axis_has_round_milliseconds(ms: float, ticks: list[str]) -> None:
    texts = [text.text or "" for text in ET.fromstring(waterfall(call(ms))).iter(f"{SVG}text")]  # noqa: S314
    middle = re.findall(r'text-anchor="middle"[^>]*>([^<]*)<', waterfall(call(ms)))
    assert middle[0] == "0 ms"
    assert [text.removesuffix(" ms") for text in middle] == ticks
    assert f"files: read, {ms:.1f} ms" in texts


def test_it_grows_to_the_room_that_it_has_and_says_what_it_shows() -> None:
    picture = ET.fromstring(waterfall(call(9.0, tool="<b>&")))  # noqa: S314 - ours
    left, top, width, height = map(float, picture.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    assert "height" not in picture.attrib  # by the ratio of the view box
    title = picture.find(f"{SVG}title")
    assert title is not None
    assert title.text == "files: <b>&: when each forward of the call ran, in milliseconds"
    for shape in picture.iter(f"{SVG}rect"):
        if shape.attrib["width"] != "100%":
            assert float(shape.attrib["x"]) + float(shape.attrib["width"]) <= width
            assert float(shape.attrib["y"]) + float(shape.attrib["height"]) <= height


def test_bars_stand_where_the_axis_says() -> None:
    picture = ET.fromstring(waterfall(call(100.0)))  # noqa: S314 - ours
    ticks = [float(line.attrib["d"].split()[0].removeprefix("M")) for line in picture.iter(f"{SVG}path")]
    forward = next(
        rect for rect in picture.iter(f"{SVG}rect") if rect.attrib["fill"] == "#2f6fb0" and rect.attrib["y"] > "40"
    )
    assert float(forward.attrib["x"]) == pytest.approx(ticks[0], abs=0.1)
    assert float(forward.attrib["width"]) == pytest.approx(ticks[-1] - ticks[0], abs=0.2)
