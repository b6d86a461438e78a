"""A base cut off behind its first layers is the model of these layers, for PEFT and for the graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.reference.first_layers import enough_layers, first_layers, on_tables
from dualtune_edge.export.reference.streamed import streamed_model
from dualtune_edge.export.reference.torch_engine import TorchEngine

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)


def made(folder: Path, layers: int, model_type: str = "qwen2", **settings: object) -> Checkpoint:
    write_checkpoint(folder, Shape(64, 128, layers, 4, 2, 288, 512, model_type=model_type, settings=settings))
    return read_checkpoint(folder)


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return made(tmp_path_factory.mktemp("deep") / "base", 4)


def adapter(deep: Checkpoint, folder: Path, layers: list[int] | None, targets: tuple[str, ...] = MODULES) -> Path:
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=list(targets),
        layers_to_transform=layers,
        layers_pattern="layers" if layers else None,
        task_type="CAUSAL_LM",
    )
    write_adapter(folder, deep.folder, config, seed=1)
    return folder


def test_two_layers_are_enough_where_all_are_alike(deep: Checkpoint) -> None:
    assert enough_layers(deep, ()) == 2


def test_each_kind_of_layer_is_there(tmp_path: Path) -> None:
    window = ["sliding_attention"] * 3 + ["full_attention"]
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    gemma = made(
        tmp_path / "gemma3",
        8,
        "gemma3_text",
        layer_types=window * 2,
        sliding_window=8,
        rope_parameters={"full_attention": rope, "sliding_attention": rope},
    )
    assert enough_layers(gemma, ()) == 4
    smollm = made(
        tmp_path / "smollm3", 8, "smollm3", no_rope_layers=[1, 1, 0, 1] * 2, use_sliding_window=False, pad_token_id=0
    )
    assert enough_layers(smollm, ()) == 3


def test_an_adapter_that_begins_late_takes_the_others_along(deep: Checkpoint, tmp_path: Path) -> None:
    late, all_over = adapter(deep, tmp_path / "late", [2, 3]), adapter(deep, tmp_path / "all", None)
    assert enough_layers(deep, [all_over]) == 2
    assert enough_layers(deep, [all_over, late]) == 3


def test_what_an_adapter_has_for_the_tables_is_seen(deep: Checkpoint, tmp_path: Path) -> None:
    assert not on_tables(adapter(deep, tmp_path / "layers", None), deep)
    assert on_tables(adapter(deep, tmp_path / "table", None, ("embed_tokens", "q_proj")), deep)


@pytest.mark.parametrize("layers", [None, [1, 3]])
def test_peft_runs_on_the_layers_that_are_left(deep: Checkpoint, tmp_path: Path, layers: list[int] | None) -> None:
    """As on the whole model with its other layers taken out."""
    folders = {"a": adapter(deep, tmp_path / "adapter", layers)}
    model = AutoModelForCausalLM.from_pretrained(deep.folder, dtype=torch.float32)
    whole = TorchEngine(deep, folders, model=model)
    cut = first_layers(deep, 2)
    part = TorchEngine(cut, folders, model=streamed_model(cut))
    assert (cut.cache.layers, cut.cache.heads) == (2, deep.cache.heads)
    for name in (None, "a"):
        for engine in (whole, part):
            engine.use(name)
        model.model.layers = model.model.layers[:2]
        model.config.num_hidden_layers = 2
        np.testing.assert_array_equal(part.forward(TOKENS), whole.forward(TOKENS))
