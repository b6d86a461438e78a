from __future__ import annotations

import pytest

from dualtune_edge.export.data.assignments import Lane, lanes, requests_in, requests_wanted
from dualtune_edge.toolkit.tools.toolset import Tool

TOOLS = [Tool(name="read", description="Reads."), Tool(name="drop", description="Drops.")]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 50, 999])
def test_every_tool_gets_what_is_wanted(count: int) -> None:
    made = lanes("files", TOOLS, count)
    assert all(sum(lane.wanted for lane in made if lane.tool == tool.name) == count for tool in TOOLS)
    assert all(lane.wanted > 0 for lane in made)


def test_requests_are_lines_whatever_marks_a_model_puts_before_them() -> None:
    text = '1. read a\n\n- drop b\n  2) "read c"\n“drop d”\n3 files, please\nsay "no"\n'
    assert requests_in(text) == ["read a", "drop b", "read c", "drop d", "3 files, please", 'say "no"']


def test_the_teacher_sees_the_tools_the_place_and_what_is_there_already() -> None:
    lane = Lane("files", "read", "several", 5)
    first, second = (
        requests_wanted(lane, TOOLS, "In it are:\na.txt", ["read b"], count=3, draw=draw)[1]["content"]
        for draw in ("0 files/read/several/0", "0 files/read/several/0")
    )
    assert first == second
    for part in ("- drop: Drops.", "a.txt", "read b", "Write 3 different requests", "the tool read"):
        assert part in first
