"""The command on the tiny bundle, whose random weights are right by chance: what counts is that all is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dualtune_edge import cli
from dualtune_edge.runtime.evaluate.report import Evaluation
from dualtune_edge.toolkit.errors import DataError

TURNS = [
    {"role": "user", "content": "four commits"},
    {"role": "assistant", "tool_calls": [{"function": {"name": "log", "arguments": {"count": 4}}}]},
    {"role": "tool", "content": "a"},
    {"role": "assistant", "content": "done"},
]


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.jsonl"
    path.write_text((json.dumps({"toolset": "git", "messages": TURNS}) + "\n") * 2, encoding="utf-8")
    return path


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *map(str, arguments), "--threads", "1"])
    return int(ended.value.code or 0)


def test_a_bundle_against_itself_differs_by_nothing(
    exported: Path, heldout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run(exported, "--data", heldout, "--against", exported, "--html", page, "--json") == 0
    report = Evaluation.model_validate_json(capsys.readouterr().out)
    assert report.turns == 4
    assert report.ours.scores.tools.of == 4
    assert report.ours.scores.calls.of == report.ours.scores.abstentions.of == 2
    assert report.against
    assert report.against.other.scores == report.ours.scores
    assert (report.against.right.difference, report.against.right.only_ours) == (0, 0)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_fewer_turns_are_spread_over_the_file(
    exported: Path, heldout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(exported, "--data", heldout, "--count", "1") == 0
    assert "1 turns of heldout.jsonl" in capsys.readouterr().out


def test_data_that_cannot_be_read_is_named(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(exported, "--data", tmp_path / "absent.jsonl") == DataError.exit_code
    assert "absent.jsonl" in capsys.readouterr().err
