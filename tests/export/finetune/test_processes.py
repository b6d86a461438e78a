"""Two processes that train one adapter are one process, within rounding."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from dualtune_edge.export.finetune import trainer
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge.toolkit.errors import SpecError

pytestmark = pytest.mark.slow
_FLAGS = ("--rank", "2", "--threads", "1", "--batch-size", "3", "--learning-rate", "1e-2", "--json")


def _launch(run: Any, count: int, output: Path, *flags: str) -> dict[str, Any]:
    """The report of `finetune` in so many processes."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"),
        *("-m", "dualtune_edge", "finetune", "--objective", "selection", "--base", str(run.base)),
        *("--tools", str(run.tools), "--data", str(run.data), "-o", str(output), *_FLAGS, *flags),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)  # one report: the first process alone prints
    assert done.stderr.count("samples, ") == 1
    assert f"{count} processes, each 1 threads" in done.stderr  # not so many whole runs beside each other
    return report


def test_two_processes_make_the_losses_and_the_adapter_of_one_and_go_on_as_one(
    settings: Any, base: Base, tmp_path: Path
) -> None:
    run = settings(rank=2, batch_size=3, learning_rate=1e-2, max_steps=4, threads=1)
    run = run.model_copy(update={"held_out": run.data, "measure_every": 2})
    alone = finetune(run, base=base)
    together = _launch(
        run, 2, tmp_path / "two", "--max-steps", "4", "--held-out", str(run.data), "--measure-every", "2"
    )
    for score, other in zip(alone.held_out, together["held_out"], strict=True):
        assert (score.step, score.right, score.samples) == (other["step"], other["right"], other["samples"])
        np.testing.assert_allclose(other["loss"], score.loss, rtol=1e-5)
    assert together["kept"] == alone.kept
    np.testing.assert_allclose(together["losses"], alone.losses, rtol=1e-5)
    assert together["learnt"] == alone.learnt
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (run.output, tmp_path / "two"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        np.testing.assert_allclose(two[name], weight, rtol=1e-3, atol=1e-5)


def test_a_stopped_run_goes_on_in_another_number_of_processes(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With moments in 8 bits, whose codes rounding may decide, and a base in 4."""
    pytest.importorskip("bitsandbytes", reason="the wheel of bitsandbytes does not exist for this system")
    low_bits = {"rank": 64, "base_bits": 4, "optimizer": "adamw-8bit"}
    run = settings(batch_size=3, learning_rate=1e-2, max_steps=4, threads=1, **low_bits)
    whole = finetune(run)
    stopped = run.model_copy(update={"output": tmp_path / "stopped"})
    steps, summed = itertools.count(1), trainer.summed_loss

    def loss(*arguments: Any) -> Any:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return summed(*arguments)

    monkeypatch.setattr(trainer, "summed_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        finetune(stopped)
    assert state_path(stopped.output).exists()
    flags = ("--rank", "64", "--base-bits", "4", "--optimizer", "adamw-8bit")
    report = _launch(run, 2, stopped.output, "--max-steps", "4", "--resume", *flags)
    np.testing.assert_allclose(report["losses"], whole.losses, rtol=1e-4)
    assert not state_path(stopped.output).exists()


def test_processes_that_cannot_speak_to_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Processes()  # this process stands alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="2 processes, of which each stands alone"):
        Processes()


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"base_dtype": "bfloat16"}])
def test_a_run_that_saves_memory_learns_the_same(changes: dict[str, Any], settings: Any, tmp_path: Path) -> None:
    plain = finetune(settings(threads=1))
    saving = finetune(settings(threads=1, output=tmp_path / "saving", **changes))
    exact = "gradient_checkpointing" in changes
    np.testing.assert_allclose(saving.losses, plain.losses, rtol=1e-5 if exact else 0.02)


def test_what_is_added_up_is_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has 0.5 more of everything; one that had no sample has no gradient."""
    processes = Processes()
    monkeypatch.setattr(processes, "count", 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda own: own.add_(0.5))
    one, other = (torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(2))
    one.grad = torch.full((2, 3), 2.0)
    processes.sum_gradients([one, other])
    assert one.grad is not None
    assert other.grad is not None
    assert (one.grad.tolist(), other.grad.tolist()) == ([[2.5] * 3] * 2, [[0.5] * 3] * 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda own: own.add_(3))
    assert processes.sums(1.5, 7) == (4.5, 10)
