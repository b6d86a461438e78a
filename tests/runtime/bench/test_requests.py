import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.bench.requests import fitting, made_requests, read_requests, spread
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.tools.toolset import Tool

CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "log", "arguments": {"count": 3}}}]}
TURNS = [
    {"role": "user", "content": "three commits"},
    CALL,
    {"role": "tool", "content": "here"},
    {"role": "assistant", "content": "Done."},
    {"role": "assistant", "content": "Really."},
]


@pytest.fixture(scope="module")
def manifest(exported: Path) -> Manifest:
    return open_bundle(exported).manifest


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def tool(schema: dict[str, Any]) -> Tool:
    return Tool(name="t", description="", parameters={"type": "object", **schema})


def test_every_turn_that_answers_somebody_is_a_request(manifest: Manifest, tmp_path: Path) -> None:
    requests = read_requests(write(tmp_path / "r.jsonl", {"toolset": "git", "messages": TURNS}), manifest, 10)
    assert [
        (request.toolset, len(request.messages), request.call and request.call.arguments) for request in requests
    ] == [
        ("git", 1, {"count": 3}),
        ("git", 3, None),
    ]
    assert requests[0].where.endswith("r.jsonl:1, message 2")


def test_a_turn_of_weight_0_is_context_and_no_request(manifest: Manifest, tmp_path: Path) -> None:
    failed = {"role": "assistant", "tool_calls": [{"function": {"name": "unknown", "arguments": {}}}], "weight": 0}
    messages = [TURNS[0], failed, {"role": "tool", "content": "error"}, *TURNS[1:4]]
    requests = read_requests(write(tmp_path / "r.jsonl", {"toolset": "git", "messages": messages}), manifest, 10)
    assert [len(request.messages) for request in requests] == [3, 5]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"messages": TURNS}, "no toolset"),
        ({"toolset": "mail", "messages": TURNS}, "'mail'"),
        ({"toolset": "files", "messages": TURNS}, "a call of 'log'"),
        ({"toolset": "git", "messages": TURNS[:1] * 2}, "no turn"),
    ],
)
def test_requests_that_the_bundle_cannot_answer_are_refused(
    manifest: Manifest, tmp_path: Path, line: Any, found: str
) -> None:
    with pytest.raises(DataError, match=found):
        read_requests(write(tmp_path / "r.jsonl", line), manifest, 10)


def test_made_requests_name_each_tool_and_hold_their_values(manifest: Manifest) -> None:
    requests = made_requests(manifest, 6)
    calls = [request.call for request in requests if request.call]
    assert [call.name for call in calls] == ["read", "sort", "roots", "log", "read", "sort"]
    assert len({request.messages for request in requests}) == 6
    for request, call in zip(requests, calls, strict=True):
        assert all(str(value) in request.messages[0].content for value in call.arguments.values())
    assert calls[1].arguments != calls[5].arguments


def test_fewer_requests_than_tools_are_spread_over_them(manifest: Manifest) -> None:
    assert [request.call and request.call.name for request in made_requests(manifest, 2)] == ["read", "roots"]


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"properties": {"a": {"type": ["integer", "null"], "minimum": 5, "maximum": 6}}}, {"a": 6}),
        ({"properties": {"a": {"type": "array", "items": {"const": "x"}}}}, {"a": ["x"]}),
        ({"properties": {"a": {"pattern": "^0+$"}, "b": {"type": "boolean"}}, "required": ["b"]}, {"b": False}),
        ({"properties": {"a": {"pattern": "^0+$"}}, "required": ["a"]}, None),
        (
            {"properties": {"a": True, "b": {"$ref": "#/$defs/b"}}, "required": ["a"], "$defs": {"b": False}},
            {"a": "a-3"},
        ),
    ],
)
def test_values_fit_or_are_left_out(schema: dict[str, Any], arguments: dict[str, Any] | None) -> None:
    assert fitting(tool(schema), 3) == arguments


@given(st.lists(st.integers(), unique=True), st.integers(1, 20))
def test_what_is_spread_keeps_its_order(items: list[int], count: int) -> None:
    taken = spread(items, count)
    assert len(taken) == min(len(items), count)
    assert taken == [item for item in items if item in taken]
