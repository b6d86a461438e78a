"""Dialogues worked through by an agent that follows a script, on systems in another process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bfcl_package import write_package
from scripted_answers import result

from dualtune_edge.runtime.evaluate.multi_turn.evaluation import work_through
from dualtune_edge.runtime.evaluate.multi_turn.rows import Dialogue, Turn, parse_call
from dualtune_edge.runtime.evaluate.multi_turn.simulation import Simulation
from dualtune_edge.runtime.evaluate.tasks.running import TaskResult
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.prompts.messages import Message, user

Call = tuple[str, dict[str, Any]]
COMMIT: Call = ("commit", {"message": "c"})
LOG: Call = ("log", {"count": 3})


class ScriptedAgent:
    """Wants the calls of each turn one after the other, then none."""

    context_length = 400
    tokenizer = None
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(
            toolsets=[
                SimpleNamespace(
                    toolset=SimpleNamespace(
                        name="git", tools=[SimpleNamespace(name="log"), SimpleNamespace(name="commit")]
                    )
                )
            ]
        )
    )

    def __init__(self, turns: tuple[list[Call], ...]) -> None:
        self.turns = [list(calls) for calls in turns]
        self.offered: list[frozenset[str]] = []
        self.messages: tuple[Message, ...] = ()

    def call(self, messages: tuple[Message, ...], *, offered: Any, **_: Any) -> CallResult:
        self.messages = messages
        self.offered.append(offered["git"])
        calls = self.turns[0]
        return result("git", *calls.pop(0)) if calls else result("git", None)

    def answer(self, _messages: object, **_: Any) -> Iterator[str]:
        self.turns.pop(0)
        yield "done"


def turn(*right: str, missing: frozenset[str] = frozenset()) -> Turn:
    return Turn(messages=(user("please"),), missing=missing, right=tuple(map(parse_call, right)))


RIGHT = (turn("commit('c')", missing=frozenset({"log"})), turn("log(3)"))


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package; and the agent has no tokenizer to shorten a result by."""
    write_package(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("dualtune_edge.runtime.agent.loop.shorten", lambda text, *_: (text, 0))


def work(*turns: list[Call], right: tuple[Turn, ...] = RIGHT) -> tuple[TaskResult, ScriptedAgent]:
    config = {"git": {"commits": ["a", "b"]}}
    row = Dialogue(name="row", systems=("git",), config=config, long_context=False, turns=right)
    agent: Any = ScriptedAgent(turns)
    with Simulation(Path(sys.executable), row) as systems:
        return work_through(agent, row, systems), agent


def test_a_dialogue_is_done_when_every_turn_is_right() -> None:
    found, agent = work([COMMIT], [LOG])
    assert found.done
    assert (found.gold, found.matched, found.outcome) == (2, 2, "answered")
    assert agent.offered == [{"commit"}] * 2 + [{"log", "commit"}] * 2, "the other function comes with its turn"
    assert [message.role for message in agent.messages] == [
        "user", "assistant", "tool", "assistant", "user", "assistant", "tool",
    ]  # fmt: skip
    assert agent.messages[-1].content == '{"commits": ["a", "b", "c by Ada"]}'


def test_it_ends_with_the_first_turn_that_is_wrong() -> None:
    found, agent = work([], [LOG])
    assert found.faults == ("turn 1: no call",)
    assert (found.gold, found.matched) == (2, 0)
    assert len(agent.turns) == 1
    found, _ = work([COMMIT], [("log", {"count": 1})])
    assert not found.done
    assert (found.gold, found.matched) == (2, 1)
    assert found.faults[0].startswith("turn 2: ")


def test_more_calls_than_bfcl_allows_are_no_answer() -> None:
    many = [("log", {"count": 2})] * 20
    found, _ = work(many, right=(turn("log(2)"),))
    assert found.done, "equal calls with equal results do not end a turn"
    found, _ = work([*many, LOG], right=(turn("log(2)"),))
    assert (found.done, found.outcome) == (False, "steps")


def test_a_process_that_ends_makes_its_dialogue_wrong() -> None:
    found, _ = work([("log", {"count": 13})])
    assert (found.done, found.outcome) == (False, "failed")
    assert "bfcl-eval" in found.faults[0]
