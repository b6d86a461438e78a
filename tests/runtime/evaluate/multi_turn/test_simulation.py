"""Systems in another process: what a call answers, when a turn is right, and what ends the process."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bfcl_package import write_package

from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.evaluate.multi_turn.rows import Dialogue, Turn, parse_call
from dualtune_edge.runtime.evaluate.multi_turn.simulation import Simulation
from dualtune_edge.runtime.evaluate.tasks.task import GoldCall
from dualtune_edge.toolkit.errors import EngineError, ToolsError
from dualtune_edge.toolkit.prompts.messages import user

PYTHON = Path(sys.executable)


def turn(*right: str, missing: frozenset[str] = frozenset()) -> Turn:
    return Turn(messages=(user("please"),), missing=missing, right=tuple(map(parse_call, right)))


def dialogue(*turns: Turn, long_context: bool = False) -> Dialogue:
    return Dialogue(
        name="row",
        systems=("git", "files"),
        config={"git": {"commits": ["a", "b"]}},
        long_context=long_context,
        turns=turns,
    )


def manifest(**tools: list[str]) -> Any:
    entries = [
        SimpleNamespace(toolset=SimpleNamespace(name=name, tools=[SimpleNamespace(name=tool) for tool in names]))
        for name, names in tools.items()
    ]
    return SimpleNamespace(toolsets=entries)


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_call_answers_as_bfcl_writes_it() -> None:
    with Simulation(PYTHON, dialogue()) as systems:
        assert systems.call("git", "log", {"count": 1}) == ToolOutcome('{"commits": ["a"]}')
        assert systems.call("git", "log", {"count": 0}) == ToolOutcome('{"error": "none"}', error=True)
        assert systems.call("git", "log", {"count": -1}).text == "Error during execution: a count below zero"
        assert systems.call("git", "log", {"depth": 1}).error
        assert systems.call("git", "absent", {}).error
        assert systems.call("files", "roots", {}) == ToolOutcome("['/']")
    with Simulation(PYTHON, dialogue(long_context=True)) as systems:
        assert systems.call("git", "log", {"count": 9}).text == '{"commits": ["a", "b", "a", "b"]}'


def test_a_turn_is_right_by_state_and_by_results() -> None:
    commit, log = turn("commit('c')"), turn("log(count=3)")
    with Simulation(PYTHON, dialogue()) as systems:
        systems.call("git", "commit", {"message": "c"})
        verdict = systems.check(commit)
        assert verdict.valid
        assert verdict.calls == (GoldCall(call="git.commit", arguments={"message": "c"}),), "by name"
        systems.call("git", "log", {"count": 3})
        systems.call("git", "log", {"count": 1})
        assert systems.check(log).valid, "more calls than needed, and the state of the turn before"


@pytest.mark.parametrize(
    ("call", "right", "found"),
    [
        (("commit", {"message": "d"}), "commit(message='c')", "does not match"),
        (("log", {"count": 1}), "log(count=2)", "a result is missing in turn 0"),
        (None, "log(count=2)", "no call"),
    ],
)
def test_a_turn_is_wrong(call: tuple[str, dict[str, Any]] | None, right: str, found: str) -> None:
    with Simulation(PYTHON, dialogue()) as systems:
        if call:
            systems.call("git", *call)
        verdict = systems.check(turn(right))
        assert not verdict.valid
        assert found in verdict.message


def test_a_turn_without_right_calls_is_compared_at_the_next() -> None:
    with Simulation(PYTHON, dialogue()) as systems:
        systems.call("git", "commit", {"message": "x"})
        assert systems.check(turn()).valid
        systems.call("git", "log", {"count": 1})
        assert not systems.check(turn("log(count=1)")).valid


def test_an_earlier_result_counts_but_an_earlier_call_does_not() -> None:
    with Simulation(PYTHON, dialogue()) as systems:
        systems.call("git", "log", {"count": 2})
        assert systems.check(turn("log(count=2)")).valid
        assert systems.check(turn("log(count=2)")).message == "no call"


def test_what_is_on_offer() -> None:
    bundle = manifest(git=["log", "commit"], files=["roots"], other=["x"])
    with Simulation(PYTHON, dialogue()) as systems:
        systems.begin(turn(missing=frozenset({"log", "roots"})))
        assert systems.offer(bundle).tools == {"git": {"commit"}}
        systems.begin(turn())
        assert systems.offer(bundle).tools == {"git": {"log", "commit"}, "files": {"roots"}}
        with pytest.raises(ToolsError, match="rebase"):
            systems.offer(manifest(git=["log", "rebase"], files=["roots"]))


def test_a_process_that_ends_is_named() -> None:
    with Simulation(PYTHON, dialogue()) as systems:
        with pytest.raises(EngineError, match="code 3: what a system prints"):
            systems.call("git", "log", {"count": 13})
        with pytest.raises(EngineError):
            systems.call("git", "log", {"count": 1})


def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulation(PYTHON, dialogue()) as systems:
        monkeypatch.setattr("dualtune_edge.runtime.evaluate.multi_turn.simulation._SECONDS", 0.05)
        with pytest.raises(EngineError, match=r"no answer within 0\.05 s"):
            systems.call("git", "log", {"count": 14})


def test_a_python_without_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(EngineError, match="No module named 'bfcl_eval'"), Simulation(PYTHON, dialogue()):
        pass
    with pytest.raises(EngineError, match="No such file"), Simulation(tmp_path / "python", dialogue()):
        pass
