"""Calls that are stopped on a real engine, and what the agent answers after them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engines.engine import EngineKind
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.errors import EngineError, StoppedError

REQUEST = "read the file a"


@pytest.fixture(params=["ort", "genai"])
def agent(request: pytest.FixtureRequest, exported: Path) -> Iterator[Agent]:
    kind: EngineKind = request.param
    with Agent.open(exported, engine=kind, settings=SessionSettings(intra_op_threads=1)) as agent:
        yield agent


def test_a_deadline_that_is_over_ends_the_call_and_the_next_one_is_answered(agent: Agent) -> None:
    expected = agent.call(REQUEST)
    with pytest.raises(StoppedError, match="its deadline is over, before anything was chosen"):
        agent.call(REQUEST, deadline=0.0)
    assert agent.call(REQUEST).model_dump(include={"tool", "arguments"}) == expected.model_dump(
        include={"tool", "arguments"}
    )


def test_a_call_is_cancelled_from_another_thread_wherever_it_is(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first, the second, … forward: the error says how far it came, and the next answer is the usual one."""
    fields = {"toolset", "tool", "arguments", "probability"}
    expected = agent.call(REQUEST).model_dump(include=fields)
    reached = []
    for count in range(1, 40):
        found = stopped_at(count, agent, monkeypatch)
        if found is None:
            break
        reached.append(found)
        answer = agent.call(REQUEST).model_dump(include=fields)
        assert answer == {**expected, "probability": pytest.approx(expected["probability"], abs=1e-4)}
    assert len(reached) > 1
    assert "before anything was chosen" in reached[0]


def stopped_at(count: int, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What a call says that is cancelled at its forward of this number; None: it has fewer."""
    engine: Any = agent._engine
    cancel, left, forward = threading.Event(), iter(range(count - 1, -1, -1)), type(engine).forward

    def counted(self: object, tokens: object) -> object:
        if next(left, None) == 0:
            cancel.set()
            while not engine._options.terminate:
                pass
        return forward(self, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(type(engine), "forward", counted)
        try:
            agent.call(REQUEST, cancel=cancel)
        except StoppedError as error:
            return error.found
    return None


def test_a_waiting_call_gives_up_while_another_one_runs(agent: Agent) -> None:
    pieces = agent.answer(REQUEST, max_tokens=5)
    next(pieces, None)  # holds the engine
    with pytest.raises(StoppedError, match="before anything was chosen"):
        agent.call(REQUEST, deadline=0.05)
    pieces.close()
    assert agent.call(REQUEST).toolset


def test_an_answer_is_stopped_between_its_pieces(agent: Agent) -> None:
    cancel = threading.Event()
    pieces = agent.answer(REQUEST, max_tokens=500, cancel=cancel)
    next(pieces, None)
    cancel.set()
    with pytest.raises(StoppedError, match="it was cancelled"):
        list(pieces)
    assert agent.call(REQUEST).toolset


def test_closing_ends_the_call_that_runs(exported: Path) -> None:
    agent = Agent.open(exported)
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(lambda: "".join(agent.answer(REQUEST, max_tokens=1500)))
        while not agent._calling.locked() and not text.done():
            pass
        agent.close()
        error = text.exception(30)
    assert error is None or isinstance(error, StoppedError)


def test_a_call_that_waits_is_not_begun_once_the_agent_is_closed(exported: Path) -> None:
    agent = Agent.open(exported)
    pieces = agent.answer(REQUEST, max_tokens=50)
    next(pieces, None)  # holds the engine
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agent.call, REQUEST)
        agent.close()
        pieces.close()
        assert isinstance(waiting.exception(30), (StoppedError, EngineError))


def test_a_closed_agent_stays_closed(exported: Path) -> None:
    agent = Agent.open(exported)
    agent.close()
    agent.close()
    with pytest.raises(EngineError, match="a closed agent"):
        agent.call(REQUEST)
    with pytest.raises(EngineError, match="a closed agent"):
        list(agent.answer(REQUEST))


def test_closing_does_not_wait_for_an_answer_that_nobody_takes(exported: Path) -> None:
    agent = Agent.open(exported)
    pieces = agent.answer(REQUEST, max_tokens=50)
    next(pieces, None)
    agent.close()
