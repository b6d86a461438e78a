import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.bench.machine import rollup
from dualtune_edge.runtime.bench.report import CallRun, Span, Spread, StageRun, summarize
from dualtune_edge.runtime.bench.waterfall import waterfall, write_waterfall
from dualtune_edge.toolkit.errors import OutputError

ROLLUP = """\
55d7c000-7ffd5000 ---p 00000000 00:00 0                          [rollup]
Rss:               10000 kB
Pss:                9000 kB
Anonymous:          4000 kB
AnonHugePages:         0 kB
"""


def stage(name: str = "selection", **changes: object) -> StageRun:
    span = Span(kind="forward", start_ms=1.0, ms=4.0, tokens=7)
    whole = {
        "stage": name, "adapter": None, "ms": 5.0, "prompt": 10, "reused": 3, "forced": 2, "drafted": 0, "decided": 2,
        "forwards": 1, "roofline_ms": 2.0, "spans": (span,),
    }  # fmt: skip
    return StageRun.model_validate({**whole, **changes})


def call(*stages: StageRun, ms: float = 10.0, naive_ms: float = 40.0, same: bool = True) -> CallRun:
    return CallRun(
        request="r",
        toolset="a<b",
        tool="t&t",
        arguments={},
        right=True,
        ms=ms,
        naive_ms=naive_ms,
        same=same,
        notes=(),
        stages=stages,
    )


def test_memory_is_what_is_mapped_and_what_is_not() -> None:
    memory = rollup(ROLLUP)
    assert (memory.anonymous, memory.file) == (4000 * 1024, 6000 * 1024)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_a_spread_is_the_median_and_a_sample_that_19_of_20_do_not_exceed(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.p50 == round(statistics.median(values), 3)
    assert spread.p95 in [round(value, 3) for value in values]
    assert sum(value <= spread.p95 + 5e-4 for value in values) >= 0.95 * len(values)


def test_a_pass_is_in_ratios_of_single_calls() -> None:
    written = stage("arguments", forced=6, decided=2, forwards=2, ms=3.0)
    calls = [call(stage(), written), call(stage(), written, ms=20.0), call(stage(), ms=5.0)]
    summary = summarize("gold", calls, decode={"arguments": 50.0})
    assert summary.speedup == 4.0  # of 4, 2 and 8
    assert summary.over_roofline == 2.5  # of 10 / 4, 20 / 4 and 5 / 2
    assert summary.forwards_per_argument_token == 0.25
    assert [(stage.stage, stage.ms.samples, stage.decode_per_s) for stage in summary.stages] == [
        ("selection", 3, None),
        ("arguments", 2, 50.0),
    ]


def test_answers_are_counted() -> None:
    summary = summarize("free", [call(stage()), call(stage(), same=False)], refused=3, decode={})
    assert (summary.right, summary.same, summary.refused, summary.forwards_per_argument_token) == (2, 1, 3, None)


def test_a_waterfall_is_a_picture_with_a_bar_an_event() -> None:
    root = ET.fromstring(waterfall(call(stage(), stage("arguments"))))  # noqa: S314 - our own text
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "a<b: t&t, 10.0 ms"
    bars = [element for element in root.iter("{http://www.w3.org/2000/svg}rect") if element.get("height") == "12"]
    assert len(bars) == 4
    stages = [float(bar.get("x", "")) for bar in bars[::2]]
    events = [float(bar.get("x", "")) for bar in bars[1::2]]
    assert stages[0] < events[0] < stages[1]  # the second stage begins when the first has ended
    assert all(float(bar.get("x", "")) + float(bar.get("width", "")) <= 960 for bar in bars)


def test_a_waterfall_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_waterfall(tmp_path / "absent" / "call.svg", call(stage()))
