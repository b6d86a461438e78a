from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.export.finetune import trainer
from dualtune_edge.export.finetune.batches import summed_loss
from dualtune_edge.export.finetune.command import sparkline


def flags(run: Any) -> list[str]:
    return [
        *("--objective", run.objective, "--base", str(run.base), "--tools", str(run.tools), "--data", str(run.data)),
        *("-o", str(run.output), "--rank", "2", "--max-steps", "2", "--threads", "1", "--keep", "status=0.5"),
    ]


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["finetune", *arguments])
    return int(stopped.value.code or 0)


def test_json_holds_the_loss_curve_and_stderr_the_progress(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = settings()
    assert exit_code([*flags(run), "--json"]) == 0
    shown, progress = capsys.readouterr()
    report = json.loads(shown)
    assert len(report["losses"]) == report["steps"] == 2
    assert "step 2 of 2, loss" in progress
    assert [f"warning: {warning}" in progress for warning in report["warnings"]] == [True] * len(report["warnings"])
    assert (run.output / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_resume_goes_on(
    settings: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    run = settings()
    passes = itertools.count(1)

    def loss(*arguments: Any) -> Any:
        if next(passes) > 1:
            signal.raise_signal(number)
        return summed_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "summed_loss", loss)
        assert exit_code([*flags(run), "--batch-size", "1"]) == code
    assert "stopped after step 1 of 2: --resume goes on" in capsys.readouterr().err
    assert not run.output.exists()
    assert exit_code([*flags(run), "--batch-size", "1", "--resume"]) == 0
    assert "2 steps, 1 of them done" in capsys.readouterr().err
    assert (run.output / "adapter_model.safetensors").is_file()


def test_the_objective_s_older_name_is_taken(settings: Any) -> None:
    run = settings()
    renamed = ["--stage" if flag == "--objective" else flag for flag in flags(run)]
    assert exit_code([*renamed, "--dropout", "2"]) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp prints its settings")
def test_waiting_threads_of_pytorch_sleep() -> None:
    """Spinning ones took eight times the CPU time where another process had a core."""
    code = "import dualtune_edge.export.finetune.train"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    for setting, expected in ({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"):
        shown = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | setting | {"OMP_DISPLAY_ENV": "true"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"OMP_WAIT_POLICY = '{expected}'" in shown.stderr


def test_bad_flags_are_named(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = settings(objective="joint")
    assert exit_code([*flags(run), "--tool", "read"]) == 3
    assert "a tool for the objective 'arguments'" in capsys.readouterr().err
    assert exit_code([*flags(run), "--keep", "read"]) == 3
    assert "TOOL=SHARE" in capsys.readouterr().err
    assert exit_code([*flags(run), "--dropout", "2", "--json"]) == 3
    assert "dropout" in json.loads(capsys.readouterr().out)["error"]["where"]
    assert not run.output.exists()


def test_a_sparkline_has_the_shape_of_the_curve() -> None:
    assert sparkline((3.0, 2.0, 1.0)) == "█▄▁"
    assert sparkline((1.0,)) == "▁"
    assert sparkline(tuple(float(100 - step) for step in range(100)))[::39] == "█▁"
