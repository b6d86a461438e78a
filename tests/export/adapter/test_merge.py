"""An adapter folded into the base gives PEFT's logits, also where the graph has no slot for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from dualtune_edge.export.adapter import merge as merging
from dualtune_edge.export.adapter.merge import merge
from dualtune_edge.export.adapter.read import LoraPair, read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.toolkit.bundle.manifest import Quantization
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
    pairs = {name: LoraPair(pair.a, pair.b, pair.scale * 1.01) for name, pair in weights.pairs.items()}
    with pytest.raises(AdapterError, match=r"q_proj.weight.*scale"):
        merge(tiny, type(weights)(**vars(weights) | {"pairs": pairs}), folder / "merged")
    assert not (folder / "merged").exists()


def test_another_weight_that_changed_is_noticed(
    tiny: Checkpoint, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj"])
    fold = merging._fold

    def spoil(*args: Any) -> Any:
        merged, touched, plain = fold(*args)
        merged.model.norm.weight.data[0] += 1e-3
        return merged, touched, plain

    monkeypatch.setattr(merging, "_fold", spoil)
    with pytest.raises(AdapterError, match=r"model.norm.weight.*does not touch"):
        merge(tiny, read_adapter(folder, tiny, "merged"), folder / "merged")
