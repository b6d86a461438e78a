from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit import FOLDER

from dualtune_edge import cli
from dualtune_edge.export.demo import calls, command
from dualtune_edge.export.demo.calls import Call, DemoReport
from dualtune_edge.export.demo.task import Finding, Step, TaskReport
from dualtune_edge.runtime.result import CallResult, Timings, Tokens
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, call, user
from dualtune_edge.toolkit.prompts.trajectories import Trajectory

EXPECTED = FunctionCall(name="git_log", arguments={"repo_path": "/srv", "max_count": 1})


def answered(tool: str | None, arguments: dict[str, Any] | None, toolset: str = "git") -> Call:
    result = CallResult(
        toolset=toolset,
        tool=tool,
        arguments=arguments,
        outcome="call" if tool else "no_tool",
        probability=1.0,
        alternatives=(),
        timings_ms=Timings(toolset=0, selection=1, arguments=1, total=2),
        tokens=Tokens(prompt=1, reused=0, forced=0, decided=1, drafted=0, accepted=0, forwards=1),
    )
    return Call(
        request="what is new?",
        toolset="git",
        expected=EXPECTED,
        result=result,
        right=calls.is_right(result, "git", EXPECTED),
    )


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (answered("git_log", {"max_count": 1, "repo_path": "/srv"}), True),
        (answered("git_log", {"max_count": True, "repo_path": "/srv"}), False),
        (answered("git_log", {"max_count": 2, "repo_path": "/srv"}), False),
        (answered("git_log", {"repo_path": "/srv"}), False),
        (answered("git_diff", EXPECTED.arguments), False),
        (answered("git_log", EXPECTED.arguments, toolset="svn"), False),
        (answered(None, None), False),
    ],
)
def test_a_call_is_right_where_toolset_tool_and_arguments_are(call: Call, *, right: bool) -> None:
    assert call.right is right


def test_every_answer_is_marked_and_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = (answered("git_log", EXPECTED.arguments), answered(None, None))
    task = TaskReport(
        task="stage it",
        steps=(Step(toolset="git", tool="git_add", arguments={"files": ["a"]}, result="done"),),
        findings=(Finding(what="a is staged", right=True), Finding(what="left: b", right=False)),
    )
    report = DemoReport(bundle=None, export_seconds=3, size_bytes=5_000_000, variants=(), calls=made, task=task)
    monkeypatch.setattr(calls, "run", lambda *_, **__: report)
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", "-o", str(tmp_path / "bundle")])
    assert not ended.value.code
    assert capsys.readouterr().out == (
        "Exported to a temporary folder: 5.0 MB in 3 s.\n\n"
        'what is new?\n  ✓ git > git_log(repo_path="/srv", max_count=1)   2 ms\n\n'
        'what is new?\n  ✗ git > no tool   2 ms\n    expected git > git_log(repo_path="/srv", max_count=1)\n\n'
        "1 of 2 calls are right.\n\n"
        "A task, done on the real git server in a temporary repository:\nstage it\n"
        '  git > git_add(files=["a"])\n    done\n  ✓ a is staged\n  ✗ left: b\n'
    )


def test_a_request_that_was_refused_is_wrong_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Refusing:
        def call(self, _messages: object) -> CallResult:
            raise RequestError("arguments of 'git_log'", found="no end", expected="one", fix="Try again.")

    asked: Any = Refusing()
    right = Trajectory("x:1", (user("what is new?"), call(EXPECTED.name, EXPECTED.arguments)), "git")
    refused = calls._call(asked, right)
    assert not refused.right
    report = DemoReport(
        bundle=None, export_seconds=3, size_bytes=1, variants=(), calls=(refused,), task=TaskReport(not_run="no server")
    )
    monkeypatch.setattr(calls, "run", lambda *_, **__: report)
    with pytest.raises(SystemExit):
        cli.main(["demo", "-o", str(tmp_path / "bundle")])
    shown = capsys.readouterr().out
    assert "✗ arguments of 'git_log': found no end; expected one. Try again.\n    expected git > git_log(" in shown
    assert "0 of 1 calls are right." in shown


def test_a_task_that_was_not_done_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task = TaskReport(not_run="there is no mcp-server-git; run: pip install mcp-server-git")
    report = DemoReport(bundle=None, export_seconds=3, size_bytes=5_000_000, variants=(), calls=(), task=task)
    monkeypatch.setattr(calls, "run", lambda *_, **__: report)
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", "-o", str(tmp_path / "bundle")])
    assert not ended.value.code
    assert capsys.readouterr().out.endswith(
        "A task on the real git server was not done: there is no mcp-server-git; run: pip install mcp-server-git\n"
    )


def test_without_the_kit_its_distribution_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_KIT", "no_such_kit")
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", "--json"])
    assert ended.value.code == 15
    assert json.loads(capsys.readouterr().out)["error"]["found"] == "no package dualtune-edge-kit"


def test_the_kit_is_found_by_the_name_of_its_package() -> None:
    assert command._kit() == FOLDER
