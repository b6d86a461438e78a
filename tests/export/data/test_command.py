"""The commands: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dualtune_edge_kit import FOLDER

from dualtune_edge import cli
from dualtune_edge.toolkit.errors import DataError, SpecError

TOOLS = [f"--tools={name}={FOLDER / 'servers' / f'{name}.json'}" for name in ("git", "filesystem")]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_the_kits_held_out_conversations_are_checked_and_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FOLDER / "heldout.jsonl"
    assert run("check", data, *TOOLS, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["calls"], report["faults"]) == (581, [])
    assert run("split", data, "-o", tmp_path / "parts", "--json") == 0
    parts = {part["file"]: part["lines"] for part in json.loads(capsys.readouterr().out)["parts"]}
    assert sum(parts.values()) == report["lines"]
    held, train = tmp_path / "parts" / "heldout.jsonl", tmp_path / "parts" / "train.jsonl"
    assert run("check", train, *TOOLS, "--against", held) == 0
    assert "no leaks" in capsys.readouterr().out
    assert run("check", held, *TOOLS, "--against", data) == DataError.exit_code
    text = capsys.readouterr().out
    assert f"{parts['heldout.jsonl']} leaks:" in text
    assert "(--json has all)" in text
    assert "git.git_log" in text


def test_a_fault_alone_is_an_error_of_data(tmp_path: Path) -> None:
    good = (FOLDER / "heldout.jsonl").read_text("utf-8").splitlines()[:2]
    (tmp_path / "d.jsonl").write_text("\n".join(good), encoding="utf-8")
    assert run("check", tmp_path / "d.jsonl", *TOOLS) == 0
    (tmp_path / "d.jsonl").write_text("\n".join([*good, "{"]), encoding="utf-8")
    assert run("check", tmp_path / "d.jsonl", *TOOLS) == DataError.exit_code


@pytest.mark.parametrize("shares", ["80,20", "0,0,0", "a,b,c", "80,10,-10", "80,10,10,"])
def test_shares_that_are_none_are_refused(shares: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("split", FOLDER / "heldout.jsonl", "-o", tmp_path / "parts", f"--shares={shares}")
    assert code == SpecError.exit_code
    assert "80,10,10" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()
