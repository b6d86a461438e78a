from __future__ import annotations

import json
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.export.finetune.command import sparkline


def flags(run: Any) -> list[str]:
    return [
        *("--stage", run.stage, "--base", str(run.base), "--tools", str(run.tools), "--data", str(run.data)),
        *("-o", str(run.output), "--rank", "2", "--max-steps", "2", "--threads", "1", "--keep", "status=0.5"),
    ]


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["finetune", *arguments])
    return int(stopped.value.code or 0)


def test_json_holds_the_loss_curve_and_progress_is_quiet(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = settings()
    assert exit_code([*flags(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["losses"]) == shown["steps"] == 2
    assert (run.output / "adapter_model.safetensors").is_file()


def test_bad_flags_are_named(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = settings(stage="joint")
    assert exit_code([*flags(run), "--tool", "read"]) == 3
    assert "a tool for stage 'arguments'" in capsys.readouterr().err
    assert exit_code([*flags(run), "--keep", "read"]) == 3
    assert "TOOL=SHARE" in capsys.readouterr().err
    assert exit_code([*flags(run), "--dropout", "2", "--json"]) == 3
    assert "dropout" in json.loads(capsys.readouterr().out)["error"]["where"]
    assert not run.output.exists()


def test_a_sparkline_has_the_shape_of_the_curve() -> None:
    assert sparkline((3.0, 2.0, 1.0)) == "█▄▁"
    assert sparkline((1.0,)) == "▁"
    assert sparkline(tuple(float(100 - step) for step in range(100)))[::39] == "█▁"
