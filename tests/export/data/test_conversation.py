"""What the teacher may do wrong, and what becomes of it; no call that is refused reaches the server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.export.data.assignments import Kind
from dualtune_edge.export.data.conversation import Conversation, Desk, converse
from dualtune_edge.export.data.teacher import Reply, Usage, WantedCall
from dualtune_edge.runtime.agent.approval import Policy, ServerRules
from dualtune_edge.runtime.agent.offer import LiveTool
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.trajectories import parse_trajectory
from dualtune_edge.toolkit.tools.toolset import Tool

READ = Tool(
    name="read",
    parameters={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
)
Script = Sequence[str | Sequence[tuple[str, str]]]


class Scripted:
    """Says one thing after the other: a text, or calls."""

    def __init__(self, script: Script) -> None:
        self._script, self.asked, self.draws = list(script), list[list[dict[str, Any]]](), list[str]()

    def complete(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], draw: str) -> Reply:
        assert [tool["function"]["name"] for tool in tools] == ["read"]
        assert draw not in self.draws, "a request of its own"
        self.draws.append(draw)
        self.asked.append(list(messages))
        said = self._script.pop(0)
        if said == "refused":
            raise RequestError("x", found="HTTP 400", expected="", fix="")
        usage = Usage(requests=1, prompt_tokens=10, completion_tokens=1)
        if isinstance(said, str):
            return Reply(said, (), usage)
        return Reply("", tuple(WantedCall(f"c{n}", name, text) for n, (name, text) in enumerate(said)), usage)


def talk(
    tmp_path: Path, script: Script, *, kind: Kind = "one", result: str = "done", rule: Any = "allow"
) -> tuple[Conversation, list[Any]]:
    run: list[Any] = []

    def server(name: str, arguments: dict[str, Any]) -> ToolOutcome:
        run.append((name, arguments))
        return ToolOutcome(result, error=result.startswith("error"))

    policy = Policy(servers={"files": ServerRules(default=rule)})
    desk = Desk("files", {"read": LiveTool("read", READ)}, policy, Sandbox(tmp_path / "box"), server)
    teacher = Scripted(script)
    held = converse(teacher, desk, "read a.txt", kind, place="", most=2, draw="0")
    for sent in teacher.asked:  # as OpenAI's service wants it: each result is one call's
        calls = [call["id"] for message in sent for call in message.get("tool_calls", ())]
        assert calls == [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    return held, run


def test_a_call_a_result_and_an_answer(tmp_path: Path) -> None:
    held, run = talk(tmp_path, [[("read", '{"path": "a.txt"}')], " It says done. "])
    assert (held.calls, held.why, run) == (1, "", [("read", {"path": "a.txt"})])
    assert held.usage == Usage(requests=2, prompt_tokens=20, completion_tokens=2)
    trajectory = parse_trajectory(json.dumps({"messages": held.messages}), "x")
    assert [message.role for message in trajectory.messages] == ["user", "assistant", "tool", "assistant"]
    assert trajectory.messages[-1].content == "It says done."


@pytest.mark.parametrize(
    "wrong",
    [
        ("write", '{"path": "a.txt"}'),
        ("read", "{}"),
        ("read", '{"path": 5}'),
        ("read", '{"path": "a.txt", "mode": "r"}'),
        ("read", '{"path": "/etc/passwd"}'),
        ("read", '{"path": "sub/../../x"}'),
        ("read", '{"path": "~/x"}'),
        ("read", '{"path": "file:///etc/passwd"}'),
    ],
)
def test_a_wrong_call_is_context_and_does_not_reach_the_server(tmp_path: Path, wrong: tuple[str, str]) -> None:
    held, run = talk(tmp_path, [[wrong], [("read", '{"path": "a.txt"}')], "It says done."])
    assert run == [("read", {"path": "a.txt"})]
    assert (held.calls, held.why) == (1, "")
    assert [message.get("weight") for message in held.messages if message["role"] == "assistant"] == [0, None, None]
    assert held.messages[2]["content"].startswith("error: ")


def test_several_calls_at_once_are_made_one_after_the_other(tmp_path: Path) -> None:
    held, run = talk(tmp_path, [[("read", '{"path": "a"}'), ("read", '{"path": "b"}')], "Both."])
    assert [arguments["path"] for _, arguments in run] == ["a", "b"]
    assert [message["role"] for message in held.messages][1:] == ["assistant", "tool", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("script", "options", "why"),
    [
        (["I cannot."], {}, "no call that worked"),
        ([[("read", '{"path": "a"}')], "It failed."], {"result": "error: gone"}, "no call that worked"),
        ([[("read", '{"path": "a"}')], "No."], {"rule": "ask"}, "no call that worked"),
        ([[("read", '{"path": "a"}')], "Done."], {"kind": "none"}, "a call, where none was wanted"),
        ([[("read", "")], "Done."], {"kind": "none"}, "a call, where none was wanted"),
        ([[("read", "{path")]], {}, "arguments that are no JSON object"),
        ([[("read", "[]")]], {}, "arguments that are no JSON object"),
        ([[("read", '{"path": "a"}')]] * 3, {}, "more than 2 calls"),
        ([[("read", '{"path": "a"}')], "  "], {}, "an empty answer"),
        ([[("read", '{"path": "a"}')]], {"result": "x" * 20_001}, "a result of more than 20,000 characters"),
        (["refused"], {}, "the teacher refused it: HTTP 400"),
    ],
)
def test_what_teaches_nothing_is_left_out_with_its_reason(
    tmp_path: Path, script: Script, options: dict[str, Any], why: str
) -> None:
    assert talk(tmp_path, script, **options)[0].why == why


def test_a_result_may_have_20_000_characters(tmp_path: Path) -> None:
    held, _ = talk(tmp_path, [[("read", '{"path": "a"}')], "Done."], result="x" * 20_000)
    assert (held.calls, held.why) == (1, "")


def test_small_talk_needs_no_call(tmp_path: Path) -> None:
    assert talk(tmp_path, ["You are welcome."], kind="none")[0].why == ""
