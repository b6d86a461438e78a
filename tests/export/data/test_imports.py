"""Imports: each form becomes the same conversation, and a row that is none is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.export.data.imports import import_file, text_of
from dualtune_edge.toolkit.errors import DataError, OutputError
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories

CALLS = [{"name": "log", "arguments": {"count": 3}}, {"name": "show", "arguments": {}}]
USER = {"role": "user", "content": "three, then all"}
FUNCTIONS = [{"type": "function", "function": call} for call in CALLS]
RESULTS = [{"role": "tool", "content": "a"}, {"role": "tool", "content": '{"b": 1}'}]
TURN = {"role": "assistant", "content": None, "tool_calls": FUNCTIONS}
LAST = {"role": "assistant", "content": "Done."}
WHOLE = [USER, TURN, *RESULTS, LAST]
TOOL_TEXT = "".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>\n" for call in CALLS)
RESULT_TEXT = "".join(f"<tool_response>\n{result['content']}\n</tool_response>" for result in RESULTS)
HERMES = [
    {"from": "system", "value": "You call functions: <tools>[]</tools>"},
    {"from": "human", "value": USER["content"]},
    {"from": "gpt", "value": TOOL_TEXT},
    {"from": "tool", "value": RESULT_TEXT},
    {"from": "gpt", "value": "Done."},
]
FORMS = {
    "messages (OpenAI, TRL, AgentFlux)": {"messages": WHOLE, "tools": [], "model": "teacher"},
    "TRL's prompt and completion": {"prompt": [USER], "completion": WHOLE[1:]},
    "Hermes": {"conversations": HERMES, "tools": "[]", "category": "x"},
}


def write(path: Path, *rows: Any, as_list: bool = False) -> Path:
    text = json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows))
    path.write_text(text, encoding="utf-8")
    return path


def calls(path: Path) -> list[tuple[str, Any]]:
    (trajectory,) = read_trajectories(path)
    return [(one.function.name, one.function.arguments) for turn in trajectory.messages for one in turn.tool_calls]


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_each_form_becomes_the_same_conversation(name: str, *, as_list: bool, tmp_path: Path) -> None:
    form, found = import_file(write(tmp_path / "x.json", FORMS[name], as_list=as_list), "apis")
    assert form == name
    (one,) = found
    assert one.toolset == "apis"
    output = tmp_path / "y.jsonl"
    output.write_text(text_of(found), encoding="utf-8")
    (read,) = read_trajectories(output)
    assert (read.messages, read.toolset) == (one.messages, "apis")
    assert [message.role for message in read.messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
    assert [message.content for message in read.messages] == [USER["content"], "", "a", "", '{"b": 1}', "Done."]
    assert calls(output) == [("log", {"count": 3}), ("show", {})]


@pytest.mark.parametrize("answers", [CALLS, json.dumps(CALLS)])
def test_xlams_answers_are_calls(answers: Any, tmp_path: Path) -> None:
    row = {"id": 0, "query": USER["content"], "answers": answers, "tools": "[]"}
    form, found = import_file(write(tmp_path / "x.json", row, as_list=True), None)
    assert (form, found[0].toolset) == ("xLAM", None)
    (tmp_path / "y.jsonl").write_text(text_of(found), encoding="utf-8")
    assert calls(tmp_path / "y.jsonl") == [("log", {"count": 3}), ("show", {})]


def test_nothing_that_a_row_says_is_lost(tmp_path: Path) -> None:
    failed = TURN | {"tool_calls": FUNCTIONS[:1], "weight": 0}
    row = {"messages": [USER, failed, RESULTS[0], LAST], "toolset": "git", "note": 1}
    (one,) = import_file(write(tmp_path / "a.json", row), None)[1]
    assert (one.toolset, one.unread) == ("git", ("note",))
    written = json.loads(text_of([one]))["messages"]
    assert [message.get("weight") for message in written] == [None, 0, None, None]
    assert import_file(tmp_path / "a.json", "hg")[1][0].toolset == "hg"
    spoken = [
        {"from": "system", "value": "Be brief."},
        *HERMES[1:2],
        {"from": "gpt", "value": f"I look.\n{TOOL_TEXT}"},
        *HERMES[3:],
    ]
    (hermes,) = import_file(write(tmp_path / "b.json", {"conversations": spoken}), None)[1]
    assert [message.content for message in hermes.messages[:3]] == ["Be brief.", USER["content"], "I look."]
    (quiet,) = import_file(write(tmp_path / "c.json", {"query": "hello", "answers": [], "tools": "[]"}), None)[1]
    assert [(message.role, message.content) for message in quiet.messages] == [("user", "hello"), ("assistant", "")]
    assert quiet.unread == ("tools",)


def test_bfcls_first_accepted_values_are_the_call(tmp_path: Path) -> None:
    (tmp_path / "possible_answer").mkdir()
    question = {"id": "simple_0", "question": [[USER]], "function": []}
    write(tmp_path / "possible_answer" / "x.json", {"id": "simple_0", "ground_truth": [{"log": {"count": [3, 4]}}]})
    form, found = import_file(write(tmp_path / "x.json", question), "apis")
    (tmp_path / "y.jsonl").write_text(text_of(found), encoding="utf-8")
    assert (form, calls(tmp_path / "y.jsonl")) == ("BFCL", [("log", {"count": 3})])


@pytest.mark.parametrize(
    ("question", "truth"),
    [
        ([[USER], [USER]], [{"log": {"count": [3]}}]),  # several turns, of which the first would be learnt alone
        ([[USER], [USER]], [["log(count=3)"], ["log(count=4)"]]),
        ([[USER]], [["log(count=3)"]]),  # a call as text
        ([], [{"log": {"count": [3]}}]),
        ([[USER]], 3),
    ],
)
def test_a_row_of_bfcl_of_another_category_is_refused_and_not_cut(question: Any, truth: Any, tmp_path: Path) -> None:
    (tmp_path / "possible_answer").mkdir()
    row = {"id": "multi_7", "question": question, "function": [{"name": "log", "parameters": {}}]}
    (tmp_path / "rows.json").write_text(json.dumps(row), encoding="utf-8")
    answer = json.dumps({"id": "multi_7", "ground_truth": truth})
    (tmp_path / "possible_answer" / "rows.json").write_text(answer, encoding="utf-8")
    with pytest.raises(DataError, match=r"multi_7.*single-turn"):
        import_file(tmp_path / "rows.json", None)


@pytest.mark.parametrize(
    ("rows", "where", "found"),
    [
        ([{"text": "x"}], "row 1", "found text; expected messages"),
        ([3], "row 1", "found int"),
        ([FORMS["Hermes"], {"conversations": [{"from": "martian", "value": "x"}]}], "row 2", "KeyError: 'martian'"),
        ([{"conversations": [{"from": "gpt", "value": "<tool_call>{'a': 1}</tool_call>"}]}], "row 1", "row of Hermes"),
        ([{"query": "x", "answers": "[{]", "tools": "[]"}], "row 1", "row of xLAM"),
        ([{"messages": [USER]}], "row 1, messages", "expected at least 2 of them"),
        ([FORMS["Hermes"], 3], "row 2", "row of Hermes"),
    ],
)
def test_a_row_that_is_none_is_named(rows: list[Any], where: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        import_file(write(tmp_path / "x.jsonl", *rows), None)
    assert refused.value.where.endswith(where)
    assert found in str(refused.value)


def test_the_command_says_what_it_passed_over_and_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write(tmp_path / "x.json", FORMS["Hermes"]), tmp_path / "y.jsonl"

    def run() -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", "import", str(data), "-o", str(output), "--toolset", "apis", "--json"])
        return int(ended.value.code or 0)

    assert run() == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"file": str(output), "form": "Hermes", "lines": 1, "calls": 2}
    assert "the key 'category' of 1 lines is not read" in err
    before = output.read_bytes()
    assert run() == OutputError.exit_code
    assert output.read_bytes() == before
