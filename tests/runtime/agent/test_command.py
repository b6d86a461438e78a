"""The command on the tiny bundle, whose random weights choose any tool: what counts is what is made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["agent", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def mcp(tmp_path: Path) -> Path:
    """A file with one server, which has none of the bundle's tools as it knows them."""
    server = Path(__file__).with_name("misbehaving_server.py")
    path = tmp_path / "mcp.json"
    entry = {"command": sys.executable, "args": [str(server)]}
    path.write_text(json.dumps({"mcpServers": {"git": entry}}), encoding="utf-8")
    return path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run in which nothing was called."""
    path = tmp_path / "run.jsonl"
    lines = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}
    path.write_text(json.dumps(lines) + "\n", encoding="utf-8")
    return path


def test_servers_without_a_usable_tool_are_named_and_the_answer_comes_all_the_same(
    exported: Path, mcp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(exported), "hello", "--mcp", str(mcp), "--json", "--max-steps", "1") == 0
    output = capsys.readouterr()
    assert "git.log: the server's schema is not the one that the bundle was made for" in output.err
    found: list[dict[str, Any]] = [json.loads(line) for line in output.out.splitlines()]
    assert found[-1]["event"] == "done"
    assert found[-1]["outcome"] == "answered"
    assert {event["event"] for event in found} <= {"text", "done"}


def test_a_replay_that_goes_another_way_says_so(
    exported: Path, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(str(exported), "sort it", "--replay", str(recorded), "--json", "--max-steps", "1")
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, done["outcome"]) in {(20, "failed"), (0, "answered")}
    assert done["outcome"] == "answered" or "replay, step 1" in done["reason"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["hello"], 3, "no --mcp"),
        (["hello", "--mcp", "none.json"], 3, "none.json"),
        (["hello", "--mcp", "x", "--policy", "none.toml"], 3, "none.toml"),
        (["hello", "--replay", "none.jsonl"], 14, "none.jsonl"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str], code: int, message: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(exported), *arguments) == code
    assert message in capsys.readouterr().err


def test_without_a_task_and_a_terminal_nothing_is_begun(
    exported: Path, mcp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(exported), "--mcp", str(mcp)) == 12
    assert "no terminal" in capsys.readouterr().err
