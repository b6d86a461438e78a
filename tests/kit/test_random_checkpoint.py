from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TIED = Shape(64, 128, 2, 4, 2, 288, 512)
UNTIED = Shape(64, 128, 2, 4, 2, 288, 512, tied=False, model_type="llama")


def in_memory(shape: Shape, seed: int) -> dict[str, torch.Tensor]:
    """The same draws on a model that is whole in memory."""
    model = AutoModelForCausalLM.from_config(shape.config(), dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.normal_(float("norm" in name), 0.1, generator=generator)
            else:
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
    return dict(model.named_parameters())


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("shape", [TIED, UNTIED])
@pytest.mark.parametrize("shard", [1, 50_000, 10**9])
def test_the_weights_are_those_of_a_model_drawn_whole(shape: Shape, shard: int, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, shape, seed=5, shard=shard)
    expected, found = in_memory(shape, 5), read(tmp_path)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


def test_a_shard_holds_at_most_what_was_asked_for_or_one_weight(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, UNTIED, shard=50_000)
    places = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    for file in tmp_path.glob("*.safetensors"):
        weights = load_file(file)
        assert weights.keys() == {name for name, place in places.items() if place == file.name}
        assert len(weights) == 1 or sum(weight.nbytes for weight in weights.values()) <= 50_000


def test_transformers_loads_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, UNTIED, seed=5, shard=50_000)
    model, loading = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert model.dtype == torch.bfloat16
