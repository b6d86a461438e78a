"""Requests written by hand: each right call fits its tool's schema, and is made of the request's own words."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from dualtune_edge_kit import FOLDER

from dualtune_edge.export.demo.calls import shown
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, read_trajectories

REQUESTS = read_trajectories(FOLDER / "handwritten.jsonl")
CALLING = [trajectory for trajectory in REQUESTS if trajectory.messages[1].tool_calls]
_MEANT = {"dryRun", "sortBy", "branch_type"}  # whose values are said in other words


@pytest.mark.parametrize("trajectory", CALLING, ids=lambda trajectory: trajectory.messages[0].content)
def test_the_right_call_fits_the_schema_and_the_words(trajectory: Trajectory) -> None:
    request, answer = trajectory.messages
    (call,) = (call.function for call in answer.tool_calls)
    tools = json.loads((FOLDER / "servers" / f"{trajectory.toolset}.json").read_text(encoding="utf-8"))["tools"]
    (schema,) = (tool["inputSchema"] for tool in tools if tool["name"] == call.name)
    jsonschema.validate(call.arguments, schema)
    words = [word for name, value in call.arguments.items() if name not in _MEANT for word in _texts(value)]
    content = request.content or ""
    assert [word for word in words if word not in content] == []


def test_there_are_three_hundred_and_none_is_one_of_another_file() -> None:
    texts = [trajectory.messages[0].content for trajectory in REQUESTS]
    assert len(set(texts)) == len(texts) == 300
    heldout = {trajectory.messages[0].content for trajectory in read_trajectories(FOLDER / "heldout.jsonl")}
    assert not heldout & set(texts)
    assert {trajectory.toolset for trajectory in CALLING} == {"filesystem", "git"}


def test_the_demo_shows_ten_of_both_toolsets() -> None:
    drawn = shown(REQUESTS)
    assert len(drawn) == 10
    assert {trajectory.toolset for trajectory in drawn} == {"filesystem", "git"}


def _texts(value: Any) -> Iterator[str]:
    """The texts and numbers of a value."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    else:
        yield str(value)
