"""Checks of data: each kind of fault is named at its place, and what is covered is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.export.data.check import check
from dualtune_edge.export.data.lines import Line, named_files, read_lines
from dualtune_edge.toolkit.errors import DataError, SpecError
from dualtune_edge.toolkit.tools.toolset import Tool

LOG = Tool(
    name="log",
    parameters={
        "type": "object",
        "properties": {"count": {"type": "integer"}, "path": {"type": "string"}},
        "required": ["count"],
    },
)
TOOLSETS = {"git": {"log": LOG, "roots": Tool(name="roots")}}
USER = {"role": "user", "content": "three  Commits"}


def call(name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}], **more}


def line(*messages: dict[str, Any], toolset: str | None = "git") -> dict[str, Any]:
    return {"toolset": toolset, "messages": [USER, *messages]}


def lines(tmp_path: Path, *values: Any, name: str = "d.jsonl") -> list[Line]:
    path = tmp_path / name
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("\n".join(texts) + "\n\n", encoding="utf-8")
    return read_lines(path)


@pytest.mark.parametrize(
    ("value", "where", "found"),
    [
        ("{", ":1", "found"),
        ({"messages": [USER]}, ":1", "messages"),
        (line(call("log", {"count": 1}), toolset="mail"), ":1", "toolset 'mail'; expected one of git"),
        (line(call("log", {"count": 1}), toolset=None), ":1", "toolset None"),
        (line(call("push", {})), ":1, message 2", "'push', which is no tool"),
        (line(call("log", {"count": "3"})), ":1, message 2", "its schema refuses"),
        (line(call("log", {})), ":1, message 2", "its schema refuses"),
        (line(call("log", {"count": 3, "colour": 1})), ":1, message 2", "its schema refuses"),
        (line(call("roots", {"count": 3})), ":1, message 2", "its schema refuses"),
    ],
)
def test_a_fault_is_named_at_its_place(value: Any, where: str, found: str, tmp_path: Path) -> None:
    (fault,) = check(lines(tmp_path, value), TOOLSETS).faults
    assert fault.where == f"{tmp_path / 'd.jsonl'}{where}"
    assert found in fault.found


def test_all_faults_are_named_and_the_other_lines_count(tmp_path: Path) -> None:
    good = line(call("log", {"count": 1}), {"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"})
    report = check(lines(tmp_path, "{", line(call("push", {})), good, "}"), TOOLSETS)
    assert (report.lines, report.turns, report.calls, len(report.faults)) == (4, 3, 2, 3)
    assert [tool.calls for tool in report.tools] == [1, 0]


def test_a_call_that_is_not_learnt_may_be_wrong(tmp_path: Path) -> None:
    failed = [call("log", {"count": count}, weight=0) for count in ("x", 3)]
    report = check(lines(tmp_path, line(*failed)), TOOLSETS)
    assert report.faults == ()
    assert report.tools[0].calls == 0, "what is covered is what is learnt"


def test_arguments_are_counted_with_their_values(tmp_path: Path) -> None:
    made = [{"count": 1}, {"count": 1, "path": "a"}, {"count": 2, "path": "b"}, {"count": 2.0, "path": "b"}]
    report = check(lines(tmp_path, *(line(call("log", arguments)) for arguments in made)), TOOLSETS)
    log, roots = report.tools
    assert (log.tool, log.calls, roots.calls, roots.properties) == ("log", 4, 0, ())
    assert [(entry.name, entry.required, entry.given) for entry in log.properties] == [
        ("count", True, 4),
        ("path", False, 3),
    ]
    assert log.properties[1].values == 2


def test_one_list_without_a_name_is_for_every_line(tmp_path: Path) -> None:
    report = check(lines(tmp_path, line(call("log", {"count": 1}), toolset=None)), {"": TOOLSETS["git"]})
    assert report.faults == ()
    assert report.tools[0].calls == 1


def test_lines_that_say_the_same_are_duplicates(tmp_path: Path) -> None:
    one, other = line(call("log", {"count": 1})), line(call("log", {"count": 2}))
    spaced = json.dumps(one, indent=None, separators=(", ", ":  "))
    (pair,) = check(lines(tmp_path, one, other, spaced), TOOLSETS).duplicates
    assert (pair.where[-2:], pair.other[-2:]) == (":3", ":1")
    assert check(lines(tmp_path, one, one | {"toolset": "mail"}), TOOLSETS).duplicates == ()


def test_a_request_is_what_the_user_says_first(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are helpful."}
    made = [
        {"messages": [system, USER | {"content": text}, call("roots", {})]} for text in ("Where? ", "when", "where?")
    ]
    assert [entry.request for entry in lines(tmp_path, *made)] == ["where?", "when", "where?"]
    alone = {"messages": [system | {"content": "Disk  full"}, call("roots", {})]}
    assert [entry.request for entry in lines(tmp_path, alone, "{ no  JSON")] == ["disk full", "{ no json"]


def test_a_request_of_the_other_file_is_a_leak_whatever_its_case_and_blanks(tmp_path: Path) -> None:
    held = lines(tmp_path, *[line(call("log", {"count": 9}))] * 2, name="heldout.jsonl")
    mine = line(call("log", {"count": 1})) | {"messages": [USER | {"content": "Three commits "}, call("roots", {})]}
    new = line(call("roots", {})) | {"messages": [USER | {"content": "where?"}, call("roots", {})]}
    (pair,) = check(lines(tmp_path, mine, new), TOOLSETS, held).leaks
    assert (pair.where[-2:], pair.other) == (":1", f"{tmp_path / 'heldout.jsonl'}:1")


def test_a_line_of_the_other_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """Whether it is a leak cannot be said."""
    report = check(lines(tmp_path, line(call("roots", {}))), TOOLSETS, lines(tmp_path, "[", name="heldout.jsonl"))
    assert [fault.where for fault in report.faults] == [f"{tmp_path / 'heldout.jsonl'}:1"]


def test_a_file_without_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no line"):
        lines(tmp_path, "")
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        read_lines(tmp_path / "absent.jsonl")


def test_tool_lists_are_named_or_one() -> None:
    assert named_files(["a.json"]) == {"": Path("a.json")}
    assert named_files(["git=a.json", "files=b.json"]) == {"git": Path("a.json"), "files": Path("b.json")}
    for wrong in (["a.json", "b.json"], ["a.json", "git=b.json"], ["git=a", "git=b"]):
        with pytest.raises(SpecError):
            named_files(wrong)


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    text = json.dumps(line(call("roots", {})))
    (tmp_path / "d.jsonl").write_text(f"{text}\r\n{text}\r\n", encoding="utf-8-sig", newline="")
    read = read_lines(tmp_path / "d.jsonl")
    assert [(entry.text, entry.fault) for entry in read] == [(text, "")] * 2
