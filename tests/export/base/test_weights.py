"""Weights are the stored numbers, whichever rows are asked for; merged ones are PEFT's, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from dualtune_edge.export.adapter.merge import merge
from dualtune_edge.export.adapter.merged_weights import MergedWeights
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.weight_files import stored_weights
from dualtune_edge.export.base.weights import StoredWeights

QUERY = "model.layers.1.self_attn.q_proj.weight"
PLAIN: dict[str, dict[str, Any]] = {
    "all modules": {},
    "patterns": {"use_rslora": True, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"up_proj": 1}},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "a bias in LoRA": {"target_modules": ["q_proj", "k_proj"], "lora_bias": True},
}
OTHER: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "a whole module": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "biases of the base": {"bias": "all"},
    "rows of the embedding": {"target_modules": ["q_proj"], "trainable_token_indices": [72]},
}


@pytest.mark.parametrize("base", ["tiny", "untied"])
def test_stored_numbers_come_as_they_are(base: str, request: pytest.FixtureRequest) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(base)
    weights = checkpoint.weights
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    for name, expected in model.state_dict().items():
        assert torch.equal(weights.read(name), expected), name
        assert not weights.changed(name)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 40), slice(60, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_rows_of_the_whole(rows: slice, dtype: torch.dtype, tiny: Checkpoint, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "base"))
    stored = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    read = StoredWeights(stored_weights(folder), tied=True).read(QUERY, rows)
    assert read.dtype == torch.float32
    assert torch.equal(read, stored[QUERY][rows].to(torch.float32))


@pytest.mark.parametrize("base", ["tiny", "untied"])
@pytest.mark.parametrize("config", PLAIN)
def test_merged_weights_are_pefts(
    config: str, base: str, request: pytest.FixtureRequest, make_adapter: Any, tmp_path: Path
) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(base)
    adapter = read_adapter(make_adapter(checkpoint, **PLAIN[config]), checkpoint, "merged")
    assert adapter.plain
    merge(checkpoint, adapter, tmp_path / "merged")
    weights, own = MergedWeights(checkpoint, adapter), checkpoint.weights
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert weights.tied == model.config.tie_word_embeddings
    for name, expected in model.state_dict().items():
        assert torch.equal(weights.read(name), expected), name
        assert torch.equal(weights.read(name, slice(3, 9)), expected[3:9]), name
        assert weights.changed(name) != torch.equal(expected, own.read(name)), name


@pytest.mark.parametrize("config", OTHER)
def test_what_pairs_do_not_hold_is_not_plain(config: str, untied: Checkpoint, make_adapter: Any) -> None:
    assert not read_adapter(make_adapter(untied, **OTHER[config]), untied, "merged").plain
