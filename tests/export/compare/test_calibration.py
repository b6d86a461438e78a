import json
from pathlib import Path

import pytest

from dualtune_edge.export.compare.calibration import Case, read_calibration
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.messages import call, user
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

GIT = Toolset(name="git", tools=(Tool(name="log"), Tool(name="diff")))
FILES = Toolset(name="files", tools=(Tool(name="read"),))


def read(tmp_path: Path, *lines: object, toolsets: tuple[Toolset, ...] = (GIT, FILES)) -> tuple[Case, ...]:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return read_calibration(path, toolsets, "summarize").cases


def test_the_three_forms(tmp_path: Path) -> None:
    message = {"role": "user", "content": "what changed?"}
    cases = read(tmp_path, '"what changed?"', "", [message], {"messages": [message], "toolset": "git"})
    asked = (user("what changed?"),)
    assert cases == (Case(asked, None, None), Case(asked, None, None), Case(asked, "git", None))


def test_the_only_toolset_need_not_be_named(tmp_path: Path) -> None:
    assert read(tmp_path, '"what changed?"', toolsets=(GIT,)) == (Case((user("what changed?"),), "git", None),)


def test_a_conversation_is_a_case_at_each_turn_of_the_assistant(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "what changed?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "log", "arguments": "{}"}}]},
        {"role": "tool", "name": "log", "content": "nothing"},
        {"role": "assistant", "content": "nothing"},
        {"role": "user", "content": "and now?"},
    ]
    first, second, third = read(tmp_path, {"messages": messages, "toolset": "git"})
    assert (first.messages, first.tool) == ((user("what changed?"),), "log")
    assert (second.messages[:2], second.tool) == ((user("what changed?"), call("log")), "summarize")
    assert (third.messages[-1], third.tool) == (user("and now?"), None)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("what changed?", "no JSON from line 1, column 1 on"),
        ("7", "a JSON int"),
        ('{"message": "hi"}', "the unknown key 'message'"),
        ('{"messages": [{"role": "usr", "content": "hi"}]}', "'usr'"),
        ('{"messages": []}', "[]"),
        ('{"messages": ["hi"], "toolset": "gti"}', "'hi'"),
        ('{"messages": [{"role": "user", "content": "hi"}], "toolset": "gti"}', "the toolset 'gti'"),
        ('[{"role": "system", "content": "hi"}]', "one of role 'system'"),
        ('["hi", {"role": "assistant", "tool_calls": [{"function": {"name": "lag"}}]}]', "'hi'"),
        (
            '[{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"function": {"name": "lag"}}]}]',
            "a call of 'lag'",
        ),
        ('[{"role": "user"}]', "{'role': 'user'}"),
        ('[{"role": "assistant", "content": "hi"}]', "no message"),
        ('{"messages": [], "messages": []}', "twice"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, '"what changed?"', "", line)
    assert "own.jsonl, line 3" in caught.value.where
    assert found in caught.value.found


def test_a_file_without_a_line_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no line"):
        read(tmp_path, "", " ")
    with pytest.raises(DataError, match="missing"):
        read_calibration(tmp_path / "missing.jsonl", (GIT,), "summarize")
    (tmp_path / "latin.jsonl").write_bytes(b'"\xe9"\n')
    with pytest.raises(DataError, match="UTF-8"):
        read_calibration(tmp_path / "latin.jsonl", (GIT,), "summarize")


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    message = {"role": "user", "content": "what changed?", "annotations": [{"a": 1}]}
    path = tmp_path / "own.jsonl"
    lines = [{"messages": [message], "model": "teacher"}, {"messages": [message], "model": None, "offered": []}, "hi"]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    read = read_calibration(path, (GIT,), "summarize")
    assert len(read.cases) == 3
    assert read.warnings == (
        f"{path}: the key 'model' of 1 lines is not read",
        f"{path}: the key 'annotations' of 2 lines is not read",
        f"{path}: the key 'offered' of 1 lines is not read",
    )
