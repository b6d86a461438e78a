"""Tasks of several steps: what was read before is not read again, and the count notices where it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.requests import Request, made_task, read_tasks
from dualtune_edge.runtime.bench.roofline import Rates, Roofline
from dualtune_edge.runtime.bench.steps import measure_steps
from dualtune_edge.runtime.bench.watched import watch
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import EngineKind, open_engine

SETTINGS = SessionSettings(intra_op_threads=1, spinning=False)
CALL = '{"role": "assistant", "tool_calls": [{"function": {"name": "log", "arguments": {"count": 3}}}]}'
ASKED = '{"role": "user", "content": "three"}'
ENDED = '{"role": "tool", "content": "a"}, {"role": "assistant", "content": "b"}'


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return open_bundle(exported)


@pytest.fixture
def replay(bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Replay]:
    kind: EngineKind = getattr(request, "param", "ort")
    with open_engine(bundle.model, SETTINGS, kind) as engine:
        yield Replay(bundle, watch(engine), Roofline(Rates(1e9, 1e12, 1e12)))


@pytest.fixture
def task(bundle: Bundle) -> list[Request]:
    return made_task(bundle.manifest)


def test_a_made_task_is_one_conversation_that_comes_back_to_its_first_tool(task: list[Request]) -> None:
    called = [request.call.name if request.call else None for request in task]
    assert called == ["read", "roots", "read", None]
    for earlier, later in itertools.pairwise(task):
        assert later.messages[: len(earlier.messages)] == earlier.messages
        assert [message.role for message in later.messages[len(earlier.messages) :]] == ["assistant", "tool"]


def test_from_the_second_step_on_nothing_is_read_again(replay: Replay, task: list[Request]) -> None:
    steps = measure_steps(replay, [task, task])
    assert (steps.tasks, steps.steps) == (2, 8)
    assert [(row.stage, row.prompts) for row in steps.stages] == [("toolset", 6), ("selection", 6), ("arguments", 2)]
    for row in steps.stages:
        assert row.again == 0
        assert row.read + row.reused == row.tokens
        assert 0 < row.read < row.tokens / 2


def test_what_is_read_again_is_counted(replay: Replay, task: list[Request]) -> None:
    replay._agent = replay._naive  # it keeps nothing
    first, *later = (sum(map(len, (script.prompt for script in replay.scripts(request)))) for request in task)
    assert first
    steps = measure_steps(replay, [task])
    assert sum(row.read for row in steps.stages) == sum(row.tokens for row in steps.stages) == sum(later)
    assert all(row.again > row.tokens / 2 for row in steps.stages)


@pytest.mark.parametrize("replay", ["genai"], indirect=True)
def test_an_engine_that_restores_no_state_reads_again(replay: Replay, task: list[Request]) -> None:
    assert sum(row.again for row in measure_steps(replay, [task]).stages) > 0


def test_without_a_task_of_several_steps_there_is_nothing_to_count(replay: Replay) -> None:
    assert measure_steps(replay, []).stages == ()


def test_tasks_of_a_file_have_several_steps(bundle: Bundle, tmp_path: Path) -> None:
    lines = [f'{{"toolset": "git", "messages": [{ASKED}, {CALL}, {ENDED}]}}'] * 4
    lines.insert(2, f'{{"toolset": "git", "messages": [{ASKED}, {CALL}]}}')
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    tasks = read_tasks(path, bundle.manifest, 3)
    assert [[len(request.messages) for request in task] for task in tasks] == [[1, 3]] * 3
    assert [task[0].where for task in tasks] == [f"{path}:{line}, message 2" for line in (1, 2, 4)]
