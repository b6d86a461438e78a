"""The command on the tiny bundle, whose random weights are right by chance: what counts is that all is counted."""

from __future__ import annotations

import errno
import itertools
import json
import sys
from pathlib import Path

import pytest
from bfcl_package import write_package

from dualtune_edge import cli
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.evaluate import command
from dualtune_edge.runtime.evaluate.report import Evaluation
from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit import files
from dualtune_edge.toolkit.errors import (
    BundleError,
    DataError,
    EngineError,
    OutputError,
    ProfileError,
    RoomError,
    SpecError,
    ToolsError,
)

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


def test_what_cannot_be_compared_is_known_before_the_first_answer(
    exported: Path, heldout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agent, "call", lambda *_args, **_flags: pytest.fail("a turn was answered"))
    assert run(exported, "--data", heldout, "--against", heldout.parent / "absent") == BundleError.exit_code
    assert run(exported, "--data", heldout, "--against", "http://127.0.0.1:1/v1") == EngineError.exit_code
    cases, sides = command._cases, itertools.count()
    monkeypatch.setattr(command, "_cases", lambda *wanted: (cases(*wanted)[0][next(sides) :], 0))
    assert run(exported, "--data", heldout, "--against", exported) == DataError.exit_code, "other turns"


def test_a_page_that_fails_at_the_end_takes_nothing_with_it(
    exported: Path, heldout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = heldout.with_name("page.html")
    path.write_text("yesterday's", encoding="utf-8")

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    assert run(exported, "--data", heldout, "--html", path) == RoomError.exit_code
    assert "4 turns of heldout.jsonl" in capsys.readouterr().out
    assert sorted(other.name for other in heldout.parent.iterdir() if other.is_file()) == ["heldout.jsonl", "page.html"]
    assert path.read_text("utf-8") == "yesterday's"


def test_fewer_turns_are_spread_over_the_file(
    exported: Path, heldout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(exported, "--data", heldout, "--count", "1") == 0
    assert "1 turns of heldout.jsonl" in capsys.readouterr().out


def test_rows_of_bfcl_are_spread_too_and_the_aim_is_the_user_s(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(entry for entry in open_bundle(exported).manifest.toolsets if entry.toolset.name == "git")
    functions = [tool.model_dump() for tool in entry.toolset.tools]
    rows = [
        json.dumps({"id": f"irrelevance_{number}", "question": [[TURNS[0]]], "function": functions})
        for number in range(3)
    ]
    (tmp_path / "irrelevance.json").write_text("\n".join(rows), encoding="utf-8")
    options = ("--count", "2", "--aim", "0.5", "--json")
    assert run(exported, "--data", tmp_path / "irrelevance.json", *options) == 0
    report = Evaluation.model_validate_json(capsys.readouterr().out)
    assert (report.turns, report.ours.scores.abstentions.of) == (2, 2)
    assert report.ours.calibration
    assert report.ours.calibration.aim == 0.5


def test_data_that_cannot_be_read_is_named(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(exported, "--data", tmp_path / "absent.jsonl") == DataError.exit_code
    assert "absent.jsonl" in capsys.readouterr().err


TASKS = """
[worlds.hold.files]
"cargo.txt" = "rope"

[[tasks]]
name = "cargo"
world = "hold"
toolsets = ["git"]
request = "What is in the hold?"
check.facts = ["rope"]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.toml"
    path.write_text(TASKS, encoding="utf-8")
    return path


@pytest.fixture
def mcp(tmp_path: Path) -> Path:
    """A server whose tools are not as the bundle knows them: nothing can be called."""
    server = Path(__file__).parent.parent / "agent" / "misbehaving_server.py"
    path = tmp_path / "mcp.json"
    entry = {"command": sys.executable, "args": [str(server), "${SANDBOX}"]}
    path.write_text(json.dumps({"mcpServers": {"git": entry}}), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A dialogue of BFCL's kind, in which nothing can be done."""
    row = {
        "id": "multi_turn_base_0",
        "question": [[{"role": "user", "content": "good morning"}]],
        "initial_config": {},
        "involved_classes": ["git"],
    }
    path = tmp_path / "rows.json"
    (tmp_path / "possible_answer").mkdir()
    path.write_text(json.dumps(row), encoding="utf-8")
    truth = {"id": row["id"], "ground_truth": [[]]}
    (tmp_path / "possible_answer" / path.name).write_text(json.dumps(truth), encoding="utf-8")
    return path


def test_dialogues_are_worked_through(
    exported: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("dualtune_edge.runtime.evaluate.multi_turn.evaluation._STEPS", 1)
    page = tmp_path / "page.html"
    options = ("--bfcl-python", sys.executable, "--against", exported, "--html", page, "--json")
    assert run(exported, "--data", rows, *options) == 0
    report = TaskEvaluation.model_validate_json(capsys.readouterr().out)
    (found,) = report.ours.results
    assert (found.task, found.toolsets, found.gold) == ("multi_turn_base_0", ("git",), 0)
    assert report.against
    assert report.against.other.results[0].calls == found.calls
    assert "multi_turn_base_0" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        ([], SpecError.exit_code, "no --data and no --tasks"),
        (["--tasks", "{tasks}"], SpecError.exit_code, "without --mcp"),
        (["--data", "{rows}"], SpecError.exit_code, "Add --bfcl-python FILE"),
        (["--data", "{tasks}", "--bfcl-python", "x"], SpecError.exit_code, "--bfcl-python"),
        (["--tasks", "{tasks}", "--mcp", "{mcp}", "--bfcl-python", "x"], SpecError.exit_code, "--bfcl-python"),
        (["--data", "{rows}", "--bfcl-python", "no-such-python"], EngineError.exit_code, "no-such-python"),
        (["--data", "{rows}", "--bfcl-python", "x", "--against", "http://x/v1"], SpecError.exit_code, "http://x/v1"),
        (["--tasks", "{tasks}", "--data", "x"], SpecError.exit_code, "--data and --tasks"),
        (["--data", "{heldout}", "--profile", "absent"], ProfileError.exit_code, "absent"),
        (["--tasks", "{tasks}", "--mcp", "{mcp}", "--profile", "absent"], ProfileError.exit_code, "absent"),
        (["--data", "{rows}", "--bfcl-python", "x", "--profile", "absent"], ProfileError.exit_code, "absent"),
        (["--data", "x", "--mcp", "{mcp}"], SpecError.exit_code, "--mcp without --tasks"),
        (["--data", "x", "--policy", "x"], SpecError.exit_code, "--policy without --tasks"),
        (["--tasks", "absent.toml", "--mcp", "{mcp}"], DataError.exit_code, "absent.toml"),
        (["--tasks", "{tasks}", "--mcp", "{tasks}"], SpecError.exit_code, "tasks.toml"),
        (["--tasks", "{tasks}", "--mcp", "{mcp}", "--against", "http://x/v1"], SpecError.exit_code, "http://x/v1"),
        (["--tasks", "{tasks}", "--mcp", "{mcp}", "--aim", "0.9"], SpecError.exit_code, "--aim"),
        (["--data", "{rows}", "--bfcl-python", "x", "--aim", "0.5"], SpecError.exit_code, "--aim"),
        (["--tasks", "{tasks}", "--mcp", "{mcp}", "--against-model", "m"], SpecError.exit_code, "--against-model"),
        (["--data", "x", "--against-model", "m"], SpecError.exit_code, "--against-model"),
        (["--data", "x", "--against", "bundle", "--against-model", "m"], SpecError.exit_code, "--against-model"),
        (["--tasks", "{tasks}", "--mcp", "x", "--against", "absent"], BundleError.exit_code, "absent"),
        (["--data", "x", "--html", "absent/page.html"], OutputError.exit_code, "absent/page.html"),
        (["--tasks", "{tasks}", "--mcp", "x", "--html", "absent/page.html"], OutputError.exit_code, "absent/page.html"),
        (["--tasks", "{other}", "--mcp", "{mcp}"], DataError.exit_code, "cargo, toolsets"),
        (["--tasks", "{tasks}", "--mcp", "{none}"], SpecError.exit_code, "no server git, which cargo needs"),
        (["--tasks", "{tasks}", "--mcp", "{broken}"], ToolsError.exit_code, "git: found git: "),
        (["--tasks", "{tasks}", "--mcp", "{mcp}"], ToolsError.exit_code, "found git.log: the server's schema is not"),
    ],
)
def test_what_does_not_go_together_is_named(  # noqa: PLR0917 - fixtures
    exported: Path,
    tasks: Path,
    mcp: Path,
    rows: Path,
    heldout: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other, none, broken = tmp_path / "other.toml", tmp_path / "none.json", tmp_path / "broken.json"
    broken.write_text('{"mcpServers": {"git": {"command": "no-such-server"}}}', encoding="utf-8")
    other.write_text(TASKS.replace('"git"', '"harbour"'), encoding="utf-8")
    none.write_text(mcp.read_text(encoding="utf-8").replace('"git"', '"harbour"'), encoding="utf-8")
    named = {"tasks": tasks, "mcp": mcp, "rows": rows, "heldout": heldout}
    named |= {"other": other, "none": none, "broken": broken}
    filled = [argument.format_map(named) for argument in arguments]
    assert run(exported, *filled) == code
    assert found in capsys.readouterr().err
