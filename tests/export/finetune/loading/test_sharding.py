"""A base that two processes hold together: each has half of it, and the adapter is that of one process."""

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
from dualtune_edge.export.finetune.loading.base import Base, Precision
from dualtune_edge.export.finetune.loading.sharding import held_weights
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge.toolkit.errors import SpecError
from tests.export.finetune.test_train import COMPACT

pytestmark = pytest.mark.slow
STOPPED_AT = 3  # the pass in which a run is stopped
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {"held_out": True, "measure_every": 2},
    "parts": {"objective": "joint", "micro_batch": 1},  # two parts beside one
    "checkpointing": {"gradient_checkpointing": True, "batch_size": 1},  # the second process has no sample
    "activated": {"activated": True, "held_out": True, "max_steps": 2},
}
# Trains every run that the file names, and says what of the base this process holds.
DRIVER = """
import json, sys
from pathlib import Path
import torch
from dualtune_edge.export.finetune import trainer
from dualtune_edge.export.finetune.estimate import estimate
from dualtune_edge.export.finetune.processes import speaks
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import RunData, finetune, opened, prepared, train

def held(model):
    parts = {}
    for name, weight in model.named_parameters():
        if "lora" not in name:
            local = weight.to_local() if hasattr(weight, "to_local") else weight
            parts[local.untyped_storage().data_ptr()] = local.untyped_storage().nbytes()
    return sum(parts.values())

def gathered(model):
    # Bytes of whole weights that are there while each layer computes; those that are freed keep no storage.
    seen, most = set(), []
    def look(*_):
        whole = [weight for weight in model.parameters() if not hasattr(weight, "to_local")]
        seen.update(weight.untyped_storage() for weight in whole)
        most.append(sum({storage._cdata: storage.nbytes() for storage in seen}.values()))
    hooks = [layer.mlp.register_forward_hook(look) for layer in model.model.layers]
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2, 3]]))
    for hook in hooks:
        hook.remove()
    return most

runs = json.loads(Path(sys.argv[1]).read_text())
out, stop, summed, passes = {}, runs.pop("stop", None), trainer.summed_loss, 0
settings = {name: FinetuneSettings.model_validate(run) for name, run in runs.items()}
with opened(next(iter(settings.values()))) as (base, processes):
    sizes, layers = [held(base.model)], gathered(base.model)
    data = {name: RunData.read(run, base) for name, run in settings.items()}
    needed = estimate(list(data.values()), base, processes)
    for name, run in data.items():
        out[name] = train(run, base, processes).model_dump(mode="json")
        sizes.append(held(base.model))
if stop:
    def loss(*arguments):
        global passes
        passes += 1
        if passes == stop["at"]:
            raise KeyboardInterrupt
        return summed(*arguments)
    trainer.summed_loss = loss
    try:
        finetune(FinetuneSettings.model_validate(stop["run"]))
    except KeyboardInterrupt:
        pass
rank = torch.distributed.get_rank()
report = {"runs": out, "held": sizes, "gathered": layers, "steps": [adapter.steps for adapter in needed.adapters]}
Path(sys.argv[1]).with_suffix(f".{rank}").write_text(json.dumps(report))
"""


def together(file: Path, runs: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of two processes says of the runs, over one base."""
    file.write_text(json.dumps(runs), encoding="utf-8")
    driver = file.with_name("driver.py")
    driver.write_text(DRIVER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", driver, file]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return [json.loads(file.with_suffix(f".{rank}").read_text(encoding="utf-8")) for rank in range(2)]


def same(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Two reports, and the adapters in their folders, are equal within rounding."""
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    assert (two["learnt"], two["steps"], two["kept"]) == (one["learnt"], one["steps"], one["kept"])
    assert len(one["held_out"]) == len(two["held_out"])
    for score, other in zip(one["held_out"], two["held_out"], strict=True):
        assert (score["step"], score["right"]) == (other["step"], other["right"])
        np.testing.assert_allclose(other["loss"], score["loss"], rtol=1e-5)
    first, second = (load_file(Path(report["output"]) / "adapter_model.safetensors") for report in (one, two))
    assert first.keys() == second.keys()
    assert any(np.abs(weight).max() > 0 for name, weight in first.items() if "lora_B" in name)
    for name, weight in first.items():
        np.testing.assert_allclose(second[name], weight, rtol=1e-3, atol=1e-5, err_msg=name)


def stop(run: FinetuneSettings, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run of one process end in a pass."""
    passes, summed = itertools.count(1), trainer.summed_loss

    def loss(*arguments: Any) -> Any:
        if next(passes) == STOPPED_AT:
            raise KeyboardInterrupt
        return summed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "summed_loss", loss)
        with pytest.raises(KeyboardInterrupt):
            finetune(run, base=base)


def test_two_processes_with_half_of_the_base_each_make_the_adapters_of_one(
    settings: Any, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "compact.jinja"
    template.write_text(COMPACT, encoding="utf-8", newline="\n")

    def run(name: str, **changes: Any) -> FinetuneSettings:
        values = {"rank": 2, "batch_size": 3, "learning_rate": 1e-2, "max_steps": 3, "threads": 1} | changes
        if values.pop("held_out", False):
            values["held_out"] = settings().data
        if "activated" not in values:
            values["template"] = template
        made: FinetuneSettings = settings(output=tmp_path / name, **values)
        return made

    alone = {name: finetune(run(f"one-{name}", **changes), base=base) for name, changes in CHANGES.items()}
    whole = alone["plain"].model_dump(mode="json")
    resumed = {"held_out": True, "measure_every": 2, "resume": True}
    stop(run("to-two", held_out=True, measure_every=2), base, monkeypatch)
    runs = {name: run(f"two-{name}", **changes).model_dump(mode="json") for name, changes in CHANGES.items()}
    runs["resumed"] = run("to-two", **resumed).model_dump(mode="json")
    runs["stop"] = {"run": run("to-one", held_out=True, measure_every=2).model_dump(mode="json"), "at": STOPPED_AT}
    first, second = together(tmp_path / "runs.json", runs)
    for name, report in alone.items():
        same(report.model_dump(mode="json"), first["runs"][name])
    same(whole, first["runs"]["resumed"])
    same(whole, finetune(run("to-one", **resumed), base=base).model_dump(mode="json"))
    assert first["steps"] == second["steps"]

    weights = sum(weight.numel() * weight.itemsize for weight in base.model.parameters())
    for process in (first, second):
        assert all(held <= 0.51 * weights for held in process["held"]), (process["held"], weights)
    assert first["held"][0] + second["held"][0] >= weights
    layer, *_ = (
        sum(weight.numel() * weight.itemsize for weight in layer.parameters()) for layer in base.model.model.layers
    )
    others = weights - len(base.model.model.layers) * layer
    assert first["gathered"] == [others + layer] * len(base.model.model.layers), "one layer, and what is in none"


def test_a_process_needs_room_for_its_part_and_a_layer(base: Base) -> None:
    weights = sum(weight.numel() for weight in base.model.parameters())
    assert weights / 4 < held_weights(base.model, 4) < weights


def test_a_base_in_4_bits_is_held_by_each_process(base: Base) -> None:
    precision = Precision(bits=4, multiplied=torch.float32)
    with pytest.raises(SpecError, match="ACCELERATE_USE_FSDP"), Base.open(base.checkpoint.folder, "cpu", precision, 2):
        pass
