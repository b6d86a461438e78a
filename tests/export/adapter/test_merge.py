"""An adapter folded into the base gives PEFT's logits, also where the graph has no slot for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dualtune_edge.export.adapter import merge as merging
from dualtune_edge.export.adapter.merge import merge, merged_weights
from dualtune_edge.export.adapter.read import LoraPair, read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.base.weights import read_rows
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import AdapterError

MakeAdapter: TypeAlias = Callable[..., Path]
PeftLogits: TypeAlias = Callable[[Path, Path | None], NDArray[np.float32]]

CONFIGS: dict[str, dict[str, Any]] = {
    "rslora with patterns": {"use_rslora": True, "rank_pattern": {"k_proj": 2}, "alpha_pattern": {"up_proj": 1}},
    "dora": {"use_dora": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "a whole module": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "biases trained along": {"bias": "all"},
    "biases of its modules": {"target_modules": ["q_proj", "down_proj"], "bias": "lora_only"},
    "rows of the embedding": {"trainable_token_indices": [72, 257]},
    "parameters": {"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]},
    "a bias in LoRA": {"target_modules": ["q_proj", "k_proj"], "lora_bias": True},
}


@pytest.mark.parametrize("base", ["tiny", "untied"])
@pytest.mark.parametrize("config", CONFIGS)
def test_merged_gives_pefts_logits(
    config: str, base: str, request: pytest.FixtureRequest, make_adapter: MakeAdapter, peft_logits: PeftLogits
) -> None:
    checkpoint: Checkpoint = request.getfixturevalue(base)
    folder = make_adapter(checkpoint, **CONFIGS[config])
    out = folder / "merged"
    merge(checkpoint, read_adapter(folder, checkpoint, "merged"), out)
    reference = peft_logits(checkpoint.folder, folder)
    np.testing.assert_allclose(peft_logits(out, None), reference, atol=1e-4)
    assert np.abs(reference - peft_logits(checkpoint.folder, None)).max() > 0.01
    read_checkpoint(out)  # whole: config, every weight, tokenizer


@pytest.mark.parametrize("bits", [4, 32])
@pytest.mark.parametrize("modules", [["q_proj", "down_proj"], ["q_proj", "lm_head"]])
def test_a_graph_is_built_of_it(bits: Any, modules: list[str], tiny: Checkpoint, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(tiny, target_modules=modules)
    weights = merge(tiny, read_adapter(folder, tiny, "merged"), folder / "merged")
    build_graph(tiny, folder / "graph", Quantization(bits=bits), weights=weights)
    config = json.loads((folder / "merged" / "config.json").read_text(encoding="utf-8"))
    assert config["tie_word_embeddings"] == ("lm_head" not in modules)


def test_weights_that_the_adapter_leaves_alone_stay_bit_for_bit(tiny: Checkpoint, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj"])
    merge(tiny, read_adapter(folder, tiny, "merged"), folder / "merged")
    with (
        safe_open(tiny.folder / "model.safetensors", framework="numpy") as before,
        safe_open(folder / "merged" / "model.safetensors", framework="numpy") as after,
    ):
        assert set(before.keys()) == set(after.keys())
        names = list(before.keys())
        changed = {name for name in names if not np.array_equal(before.get_tensor(name), after.get_tensor(name))}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}


def test_a_wrong_product_is_noticed(tiny: Checkpoint, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj"])
    weights = read_adapter(folder, tiny, "merged")
    pairs = {name: replace(pair, scale=pair.scale * 1.01) for name, pair in weights.pairs.items()}
    with pytest.raises(AdapterError, match=r"q_proj.weight.*scale"):
        merge(tiny, replace(weights, pairs=pairs), folder / "merged")
    assert not (folder / "merged").exists()


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.k_proj.bias"])
def test_another_weight_that_changed_is_noticed(
    name: str, tiny: Checkpoint, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj"])
    fold = merging._fold

    def spoil(*args: Any) -> Any:
        merged, touched, plain = fold(*args)
        merged.get_parameter(name).data[0] += 1e-3
        return merged, touched, plain

    monkeypatch.setattr(merging, "_fold", spoil)
    with pytest.raises(AdapterError, match=rf"{re.escape(name)}.*does not touch"):
        merge(tiny, read_adapter(folder, tiny, "merged"), folder / "merged")


@pytest.mark.parametrize(
    ("largest", "off", "right"),
    [(0.0, 0.9e-5, True), (0.0, 1.5e-5, False), (3.0, 2.5e-5, True), (3.0, 4e-5, False), (0.0, float("nan"), False)],
)
def test_a_merged_weight_may_be_off_by_a_hundred_thousandth_of_the_largest(
    tiny: Checkpoint, make_adapter: MakeAdapter, largest: float, off: float, *, right: bool
) -> None:
    """In absolute terms where all are below 1. `largest` is a product's."""
    weights = read_adapter(make_adapter(tiny, target_modules=["q_proj"]), tiny, "merged")
    module = "model.layers.0.self_attn.q_proj"
    a, b = np.zeros_like(weights.pairs[module].a), np.zeros_like(weights.pairs[module].b)
    a[0, 0], b[0, 0] = 1.0, largest
    state = {name: read_rows(stored).clone() for name, stored in tiny.stored.items()}
    state[f"{module}.weight"][0, 0] += largest
    state[f"{module}.weight"][1, 1] += off
    model: Any = SimpleNamespace(state_dict=lambda: state)
    one = replace(weights, pairs={module: LoraPair(a, b, 1.0)})
    with nullcontext() if right else pytest.raises(AdapterError, match=r"q_proj.weight.*scale"):
        merging._verify(tiny, one, model, frozenset())


def test_an_exact_product_is_right_without_tolerance(
    tiny: Checkpoint, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_TOLERANCE", 0.0)
    weights = read_adapter(make_adapter(tiny, target_modules=["q_proj"]), tiny, "merged")
    pairs = {name: replace(pair, scale=0.0) for name, pair in weights.pairs.items()}
    state = {name: read_rows(stored) for name, stored in tiny.stored.items()}
    model: Any = SimpleNamespace(state_dict=lambda: state)
    merging._verify(tiny, replace(weights, pairs=pairs), model, frozenset())


def test_what_peft_merges_lies_in_a_folder_as_long_as_it_is_used(
    tiny: Checkpoint, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj"], use_dora=True)
    with merged_weights(tiny, read_adapter(folder, tiny, "merged"), scratch=tmp_path) as weights:
        (scratch,) = tmp_path.iterdir()
        assert scratch.name.startswith(".merge.")
        name = "model.layers.0.self_attn.q_proj.weight"
        assert weights.changed(name)
        assert not torch.equal(weights.read(name), tiny.weights.read(name))
    assert list(tmp_path.iterdir()) == []


def test_plain_lora_is_merged_as_it_is_read(tiny: Checkpoint, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    adapter = read_adapter(make_adapter(tiny, target_modules=["q_proj"]), tiny, "merged")
    with merged_weights(tiny, adapter, scratch=tmp_path) as weights:
        assert list(tmp_path.iterdir()) == []
        assert [weights.changed(f"model.layers.0.self_attn.{module}.weight") for module in ("q_proj", "k_proj")] == [
            True,
            False,
        ]


def test_a_product_that_overflows_is_refused(tiny: Checkpoint, make_adapter: MakeAdapter) -> None:
    """Of an adapter that is no plain LoRA only PEFT can tell."""
    folder = make_adapter(tiny, target_modules=["q_proj"], use_dora=True)
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor * 1e25 if "lora_" in name else tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="ValueError"):
        merge(tiny, read_adapter(folder, tiny, "merged"), folder / "merged")
    assert not (folder / "merged").exists()
