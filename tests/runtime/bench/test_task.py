"""Recorded tasks: seconds a turn, and the tokens computed for each that the conversation grew by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.report import TaskReport
from dualtune_edge.runtime.bench.requests import read_tasks
from dualtune_edge.runtime.bench.roofline import Rates, Roofline
from dualtune_edge.runtime.bench.task import replay_task
from dualtune_edge.runtime.bench.watched import watch
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.toolkit.errors import DataError

SETTINGS = SessionSettings(intra_op_threads=1, spinning=False)


def called(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": tool, "arguments": arguments}}]}


RESULT = {"role": "tool", "content": "b" * 100}
TASK = [{"role": "user", "content": "sort it"}, called("sort", by="name"), RESULT, called("sort", by="size"), RESULT]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "task.jsonl"
    lines = [{"toolset": "files", "messages": messages} for messages in (TASK, TASK[:3])]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *map(str, arguments), "--threads", "1"])
    return int(ended.value.code or 0)


def test_it_prints_json_with_each_turn(exported: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(exported, "--task", file, "--json") == 0
    report = TaskReport.model_validate_json(capsys.readouterr().out)
    (task,) = report.tasks  # the other conversation has one turn
    assert len(task.turns) == 2
    assert all(turn.ms > 0 for turn in task.turns)
    assert 100 < task.turns[1].new < 250
    assert report.states_bytes == sum(path.stat().st_size for path in (exported / "states").iterdir())
    assert report.kept_bytes > 0


def test_it_prints_a_table(exported: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(exported, "--task", file) == 0
    out = capsys.readouterr().out
    assert "1 tasks with 2 turns" in out
    assert "tokens computed for each token that the conversation grew by" in out


@pytest.mark.parametrize("other", ["--requests", "--plot"])
def test_it_is_measured_by_itself(exported: Path, file: Path, other: str) -> None:
    assert run(exported, "--task", file, other, file) == DataError.exit_code


def test_a_file_without_a_task_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"toolset": "files", "messages": TASK[:2]}), encoding="utf-8")
    assert run(exported, "--task", tmp_path / "one.jsonl") == DataError.exit_code


def test_what_is_read_is_counted_by_the_stage(exported: Path, file: Path) -> None:
    """Every stage of this bundle has an adapter of its own: what is new is read by each, and nothing else."""
    bundle = open_bundle(exported)
    tasks = read_tasks(file, bundle.manifest, 1)
    with open_engine(bundle.model, SETTINGS) as engine:
        found = replay_task(bundle, Replay(bundle, watch(engine), Roofline(Rates(1e9, 1e12, 1e12))), tasks[0])
    stages = 3  # toolset, selection, arguments
    for turn in found.turns:
        assert turn.new < turn.read <= stages * (turn.new + 1)
