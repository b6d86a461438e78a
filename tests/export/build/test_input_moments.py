"""GPTQ: what is measured, and that graphs rounded by it are nearer to the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from dualtune_edge.export import run
from dualtune_edge.export.build.input_moments import REACH, _Sums, measure_inputs
from dualtune_edge.export.build.measured_prompts import measured_prompts
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.plan.prompts import Plans, plan_prompts
from dualtune_edge.export.quantize.input_moments import InputMoments, write_moments
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.runtime import open_bundle
from dualtune_edge.toolkit.bundle.quantization import Quantization

TOOLS = [
    {"name": name, "description": name, "inputSchema": {"properties": {"path": {"enum": ["a", "b"]}}}}
    for name in ("read", "write")
]
SPEC = """\
base: base
parity: {prompts: 2, argument_tokens: 4, limits: {max_kl: 100}}
quantization: {algorithm: gptq, block_size: 64}
toolsets:
  - {name: files, description: Files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gptq")
    write_checkpoint(folder / "base", Shape(96, 320, 2, 3, 1, 288, 2048))  # a block and a half; more than the reach
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "two")):
        write_adapter(folder / name, folder / "base", config, seed=seed)
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (folder / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def spec(desk: Path) -> ExportSpec:
    return read_spec(desk / "dualtune.yaml")


@pytest.fixture(scope="module")
def read(spec: ExportSpec) -> tuple[Inputs, Plans]:
    inputs = read_inputs(spec)
    return inputs, plan_prompts(inputs)


def test_moments_are_those_of_transformers_inputs(desk: Path, read: tuple[Inputs, Plans], tmp_path: Path) -> None:
    inputs, plans = read
    prompts = [tokens for adapter, tokens in measured_prompts(inputs, plans) if adapter is None][:2]
    measure_inputs(inputs, [(None, tokens) for tokens in prompts], tmp_path / "moments", lambda: None)
    held = InputMoments(tmp_path / "moments")
    model: Any = AutoModelForCausalLM.from_pretrained(desk / "base", dtype=torch.float32)
    rows: dict[str, list[torch.Tensor]] = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, x, path=path: rows.setdefault(path, []).append(x[0][0]))
    with torch.inference_mode():
        for tokens in prompts:
            model(torch.tensor([tokens]))
    shared = next(index for index, (one, other) in enumerate(zip(*prompts, strict=False)) if one != other)
    for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        path = f"model.layers.1.{name}"
        first, second = (part.double() for part in rows[path])
        seen = torch.cat([first, second[shared:]])  # the beginning that both share is read once
        for place, moment in enumerate(held.of({path})):
            part = seen[:, place * REACH : (place + 1) * REACH]
            np.testing.assert_allclose(moment, (part.T @ part).numpy(), rtol=1e-3, atol=1e-3)
    with pytest.raises(KeyError):
        held.of({"lm_head"})


def test_who_reads_an_input_is_seen_once_and_no_module_has_moments_of_two(tmp_path: Path) -> None:
    """As where an adapter hands one of several modules a copy of the input that they share."""
    one, other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    sums, rows = _Sums(), torch.ones(3, 4)
    for given in (rows, rows.clone()):
        with sums.watching({"model.layers.0.a": one, "model.layers.0.b": other}):
            one(rows)
            other(given)
    assert list(sums.moments) == [("model.layers.0.a", "model.layers.0.b")]
    write_moments(sums.moments, tmp_path / "moments")
    (second,) = InputMoments(tmp_path / "moments").of({"model.layers.0.b"})
    np.testing.assert_array_equal(second, np.full((4, 4), 6.0))  # three rows, twice


@pytest.mark.parametrize("adapter", ["selection.files", "arguments.files.read"])
def test_an_adapter_is_measured_with_its_own_weights(adapter: str, read: tuple[Inputs, Plans], tmp_path: Path) -> None:
    inputs, plans = read
    tokens = next(tokens for used, tokens in measured_prompts(inputs, plans) if used == adapter)
    measured = []
    for used in (None, adapter):
        path = tmp_path / str(used)
        measure_inputs(inputs, [(used, tokens)], path, lambda: None)
        measured.append(InputMoments(path).of({"model.layers.1.mlp.down_proj"})[0])
    assert not np.allclose(measured[0], measured[1], rtol=1e-3)


def test_gptq_is_nearer_to_peft_than_rounding_and_makes_the_same_bytes_each_time(
    spec: ExportSpec, tmp_path: Path
) -> None:
    nearest = spec.model_copy(update={"quantization": Quantization(block_size=64)})
    by_gptq, by_rounding = run.run(spec, tmp_path / "one"), run.run(nearest, tmp_path / "nearest")
    kl = [sum(stage.mean_kl for stage in report.parity.stages) for report in (by_gptq, by_rounding)]
    assert kl[0] < 0.8 * kl[1]
    run.run(spec, tmp_path / "two")
    first, second = (open_bundle(tmp_path / name).manifest for name in ("one", "two"))
    assert first.files == second.files
    assert isinstance(first.quantization, Quantization)
    assert first.quantization.line(2) == "int4, gptq, blocks of 64"
