"""Lines as trainers write them: read, and what is not read is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, passed_over, read_trajectories

ASK = {"role": "user", "content": "Water the fern"}


def called(*ids: str) -> dict[str, Any]:
    calls = [
        {"id": name, "index": at, "type": "function", "function": {"name": "water", "arguments": f'{{"litres": {at}}}'}}
        for at, name in enumerate(ids)
    ]
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}


def result(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": f"done {name}"}


TOOLS = [{"type": "function", "function": {"name": "water", "parameters": {}}}, {"name": "prune"}]
DONE = {"role": "assistant", "content": "Done.", "tool_calls": None}


def read(folder: Path, *lines: Any, toolset: str | None = None) -> list[Trajectory]:
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    return read_trajectories(path, toolset)


def test_a_line_of_a_trainer_is_read(tmp_path: Path) -> None:
    messages = [ASK, called("c1", "c2"), result("c1"), result("c2"), DONE]
    (line,) = read(tmp_path, {"messages": messages, "tools": TOOLS, "model": "teacher"})
    assert [message.content for message in line.messages] == ["Water the fern", "", "done c1", "", "done c2", "Done."]
    assert [len(message.tool_calls) for message in line.messages] == [0, 1, 0, 1, 0, 0]
    assert line.messages[3].tool_calls[0].function.arguments == {"litres": 1}
    assert (line.tools, line.unread) == (frozenset({"water", "prune"}), ("tools", "model"))


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    """A mark before the first line, and CR before the end of each, are none of the text."""
    path = tmp_path / "data.jsonl"
    line = json.dumps({"messages": [ASK, DONE]})
    path.write_text(f"{line}\r\n{line}\r\n", encoding="utf-8-sig", newline="")
    assert [one.messages[0].content for one in read_trajectories(path)] == ["Water the fern"] * 2


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    cited = {**DONE, "annotations": [{"type": "url_citation"}]}
    lines = [{"messages": [ASK, DONE], "model": "a"}, {"messages": [ASK, cited], "model": "b", "id": None}]
    assert passed_over(line.unread for line in read(tmp_path, *lines)) == (
        "the key 'model' of 2 lines is not read",
        "the key 'annotations' of 1 lines is not read",
    )
    assert passed_over(line.unread for line in read(tmp_path, {"messages": [ASK, DONE], "toolset": "garden"})) == ()


@pytest.mark.parametrize("tools", [None, "[]", {}])
def test_tools_of_another_form_are_no_names(tmp_path: Path, tools: Any) -> None:
    (line,) = read(tmp_path, {"messages": [ASK, DONE], "tools": tools})
    assert line.tools is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"messages": [ASK, DONE], "tool_set": "a"}, "tool_set"),
        ({"message": [ASK, DONE], "messages": [ASK, DONE]}, "message"),
        ({"messages": [DONE, ASK]}, "at the start"),
        ({"messages": [ASK, called("c"), result("d")]}, r"message 3.*'d'"),
        ({"messages": [{"role": "tool", "content": "x"}, ASK]}, r"message 1.*no call before it"),
        ({"messages": [{"role": "user"}, DONE]}, "says something"),
        ({"messages": [ASK]}, "messages: .* at least 2 of them"),
        ([ASK, DONE], "expected an object"),
    ],
)
def test_a_line_that_may_mean_something_else_is_refused(tmp_path: Path, line: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=rf"data\.jsonl:1.*{complaint}"):
        read(tmp_path, line)
