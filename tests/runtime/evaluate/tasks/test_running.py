"""A task done by an agent that follows a script, on tools that really write files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from scripted_answers import result

from dualtune_edge.runtime.agent.approval import PendingCall, Policy, ServerRules
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.runtime.evaluate.tasks.running import (
    Desk,
    SandboxApprover,
    TaskCall,
    TaskResult,
    matched_calls,
    refuse_absent,
)
from dualtune_edge.runtime.evaluate.tasks.task import GoldCall, Task, World
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.errors import ToolsError

WORLD = World(files={"crew.txt": "Ines"})
Call = tuple[str, dict[str, Any]]
ALL = Policy()
WRITE: Call = ("write", {"path": "list.txt", "text": "Ines"})


class Writer:
    """Two servers: `files` reads and writes below a folder, `other` does nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        return Offer({"files": frozenset({"read", "write"}), "other": frozenset({"read"})}, frozenset(), ())

    def call(self, server: str, tool: str, arguments: dict[str, Any], *, cancel: object = None) -> ToolOutcome:  # noqa: ARG002
        assert server == "files"
        path = self.root / arguments["path"]
        if tool == "write":
            path.write_text(arguments["text"])
            return ToolOutcome("written")
        return ToolOutcome(path.read_text()) if path.exists() else ToolOutcome("no such file", error=True)


class ScriptedAgent:
    """Wants these calls one after the other, then none, and answers."""

    context_length = 400
    bundle = type("Bundle", (), {"manifest": None})
    tokenizer = None

    def __init__(self, calls: list[Call], answer: str = "") -> None:
        self.calls, self.said = calls, answer

    def call(self, _messages: object, *, offered: Any, **_: Any) -> CallResult:
        assert set(offered) == {"files"}, "the other toolset is not on offer"
        return result("files", *self.calls.pop(0)) if self.calls else result("files", None)

    def answer(self, _messages: object, **_: Any) -> Iterator[str]:
        yield self.said


def do(
    root: Path, check: dict[str, Any], *calls: Call, answer: str = "", policy: Policy = ALL, **limits: float
) -> TaskResult:
    task = Task.model_validate(
        {
            "name": "t",
            "world": "w",
            "toolsets": ["files"],
            "request": "list them",
            "gold": [{"call": f"files.{WRITE[0]}", "arguments": WRITE[1]}],
            "check": check,
        }
        | limits
    )
    agent: Any = ScriptedAgent(list(calls), answer)
    return Desk(agent, lambda: nullcontext(Writer(root)), SandboxApprover(Sandbox(root), policy)).do(task, WORLD)


@pytest.fixture(autouse=True)
def _whole_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent has no tokenizer to shorten a result by."""
    monkeypatch.setattr("dualtune_edge.runtime.agent.loop.shorten", lambda text, *_: (text, 0))


def test_a_task_is_done_when_the_files_are_as_its_check_says(tmp_path: Path) -> None:
    found = do(tmp_path, {"files": {"list.txt": "Ines"}}, WRITE)
    assert found.done
    assert (found.matched, found.calls[0].state, found.outcome) == (1, "done", "answered")
    found = do(tmp_path, {"files": {"list.txt": "Ines"}})
    assert found.faults == ("list.txt is not there",), "the folder is what it was"
    found = do(tmp_path, {"facts": ["Bjorn"]}, WRITE, answer="Bjorn")
    assert found.faults == ("list.txt is there",)


def test_a_fact_is_in_a_result_or_in_the_answer(tmp_path: Path) -> None:
    assert do(tmp_path, {"facts": ["Ines"]}, ("read", {"path": "crew.txt"})).done
    assert do(tmp_path, {"facts": ["Ines"]}, answer="It is Ines.").done
    assert do(tmp_path, {"facts": ["Ines"]}).faults == ("no result and no answer says 'Ines'",)
    failed = do(tmp_path, {"facts": ["such file"]}, ("read", {"path": "none.txt"}))
    assert (failed.done, failed.calls[0].state) == (False, "failed")
    excluded = do(tmp_path, {"facts": ["Ines"], "excluded": ["Ines"]}, ("read", {"path": "crew.txt"}))
    assert excluded.faults == ("a result says 'Ines'",)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "~/x", "$HOME/x", "a/../../x", "file:///etc/x"])
def test_no_call_leaves_the_folder(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    found = do(root, {"facts": ["x"]}, ("write", {"path": path, "text": ""}))
    assert [call.state for call in found.calls] == ["denied"]
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["crew.txt", "root"]


def test_a_call_that_the_policy_denies_is_not_made(tmp_path: Path) -> None:
    policy = Policy(servers={"files": ServerRules(tools={"write": "deny"})})
    found = do(tmp_path, {"facts": ["Ines"]}, WRITE, ("read", {"path": "crew.txt"}), policy=policy)
    assert [call.state for call in found.calls] == ["denied", "done"]
    assert not (tmp_path / "list.txt").exists()
    pending = PendingCall("files", "read", {"path": "crew.txt"}, read_only=False)
    assert SandboxApprover(Sandbox(tmp_path), policy).rule(pending)[0] == "allow"


@pytest.mark.parametrize("limits", [{"steps": 1}, {"seconds": 1e-9}])
def test_a_task_has_its_own_limits(tmp_path: Path, limits: dict[str, float]) -> None:
    found = do(tmp_path, {"facts": ["Ines"]}, WRITE, ("read", {"path": "crew.txt"}), **limits)
    assert found.outcome != "answered"
    assert len(found.calls) < 2


def test_a_gold_call_that_is_needed_twice_is_made_twice() -> None:
    gold = [GoldCall(call="files.write", arguments=WRITE[1])] * 2
    made = TaskCall(call="files.write", arguments=WRITE[1], state="done")
    other = made.model_copy(update={"arguments": {}})
    assert [matched_calls(gold, calls) for calls in ([], [made], [other, made], [made] * 2, [made] * 3)] == [
        0,
        1,
        1,
        2,
        2,
    ]


def test_a_task_is_not_done_without_its_tools() -> None:
    offer = Offer({"files": frozenset({"read"})}, frozenset(), ("git: it does not start", "gitlab: neither"))
    refuse_absent(offer, ("files",))
    with pytest.raises(ToolsError, match="git: found git: it does not start; expected"):
        refuse_absent(offer, ("files", "git"))
