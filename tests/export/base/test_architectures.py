"""Every supported architecture: its fp32 graph gives transformers' logits, with an adapter on all modules PEFT's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime_genai
import pytest
import torch
from bare_adapter import bare_adapter
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dualtune_edge.export.adapter.merge import merged_weights
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.architectures import ARCHITECTURES
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import AdapterSource, ModelSource
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import CheckpointError

MakeAdapter: TypeAlias = Callable[..., Path]
Rows: TypeAlias = list[NDArray[np.float32]]

SETTINGS = SessionSettings(intra_op_threads=1)
TOKENS = tuple(int(token) for token in np.random.default_rng(1).integers(0, 256, 80))
CUTS = (0, 50, 51, 60, 80)  # a prefill, one step, two more chunks: windows of 16 slide in each
BASE = Shape(64, 128, 3, 4, 2, 288, 512, tied=False)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1 + i / 10 for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "partial_rotary_factor": 0.5,
}
ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]


def shape(model_type: str, base: Shape = BASE, **settings: Any) -> Shape:
    return replace(base, model_type=model_type, settings={"pad_token_id": 256, **settings})


# The sizes of a Gemma are no square: the builder rounds the root, by which embeddings are multiplied.
GEMMA = Shape(72, 128, 3, 4, 2, 288, 512)
SHAPES = {
    "ernie4_5": shape("ernie4_5", use_bias=True),
    "gemma": shape("gemma", GEMMA, head_dim=32),
    "gemma2": shape(
        "gemma2",
        GEMMA,
        head_dim=32,
        sliding_window=16,
        query_pre_attn_scalar=20,
        final_logit_softcapping=3.0,
        attn_logit_softcapping=2.0,
    ),
    "gemma3": shape(
        "gemma3_text",
        GEMMA,
        head_dim=32,
        sliding_window=16,
        query_pre_attn_scalar=20,
        layer_types=ALTERNATING,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
    "granite": shape(
        "granite", embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.22, attention_multiplier=0.2
    ),
    "llama": shape("llama", attention_bias=True, mlp_bias=True),
    "llama3": shape("llama", rope_parameters=LLAMA3),
    "mistral": shape("mistral"),
    "mistral-window": shape("mistral", sliding_window=16),
    "phi3": shape("phi3", original_max_position_embeddings=128),
    "phi3-window": shape("phi3", sliding_window=16),
    "phi4-mini": shape(
        "phi3",
        replace(BASE, hidden=128, tied=True),
        rope_parameters=LONG,
        partial_rotary_factor=0.5,
        original_max_position_embeddings=96,
    ),
    "qwen2": shape("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1),
    "qwen3": shape("qwen3", head_dim=32),
    "smollm3": shape("smollm3", replace(BASE, tied=True), no_rope_layers=[1, 0, 1], use_sliding_window=False),
    "smollm3-llama3": shape("smollm3", no_rope_layers=[1, 1, 0], use_sliding_window=False, rope_parameters=LLAMA3),
}

VARIATIONS = {"llama3", "mistral-window", "phi3-window", "smollm3-llama3"}  # int4 treats them as their neighbours


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("architecture") / "base"
    write_checkpoint(folder, SHAPES[request.param], seed=3, dtype=torch.float32)
    return read_checkpoint(folder)


def rows(source: ModelSource, adapter: str | None = None) -> Rows:
    with open_engine(source, SETTINGS) as engine:
        engine.use(adapter)
        return [engine.forward(TOKENS[start:end]).copy() for start, end in itertools.pairwise(CUTS)]


def reference(checkpoint: Checkpoint, adapter: Path | None = None) -> NDArray[np.float32]:
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        logits: NDArray[np.float32] = model.eval()(torch.tensor([TOKENS])).logits[0].numpy()
    return logits


def differences(found: Rows, expected: NDArray[np.float32]) -> Sequence[float]:
    return [float(np.abs(row - expected[end - 1]).max()) for row, end in zip(found, CUTS[1:], strict=True)]


def source(checkpoint: Checkpoint, folder: Path, *adapters: AdapterSource) -> ModelSource:
    return ModelSource(
        folder=folder,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=adapters,
    )


def genai(folder: Path) -> NDArray[np.float32]:
    model = onnxruntime_genai.Model(str(folder))
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(TOKENS) + 1)
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(list(TOKENS))
    logits: NDArray[np.float32] = generator.get_logits()[0, -1].copy()
    return logits


def test_base_and_an_adapter_on_every_module_are_exact(
    checkpoint: Checkpoint, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    adapter = make_adapter(checkpoint, target_modules="all-linear")
    weights = read_adapter(adapter, checkpoint, "external")
    graph, file = tmp_path / "graph", tmp_path / "a.onnx_adapter"
    build_graph(checkpoint, graph, Quantization(bits=32))
    slots = add_slots(graph, packed=checkpoint.architecture.packed)
    assert weights.pairs.keys() == slots.modules  # PEFT finds all modules that have a slot, and no other
    write_adapter(weights, slots, file)
    opened = source(checkpoint, graph, bare_adapter("a", file, weights.sha256))
    base, adapted = reference(checkpoint), reference(checkpoint, adapter)
    assert max(differences(rows(opened), base)) < 1e-4
    assert max(differences(rows(opened, "a"), adapted)) < 1e-4
    assert np.abs(base - adapted).max() > 0.1
    np.testing.assert_allclose(genai(graph), base[-1], atol=1e-4)


@pytest.mark.parametrize("checkpoint", sorted(SHAPES.keys() - VARIATIONS), indirect=True)
def test_int4_is_nearest_to_its_adapter(checkpoint: Checkpoint, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    """Random weights amplify int4's error: single positions stray, so their mean is compared."""
    weights = read_adapter(make_adapter(checkpoint, target_modules="all-linear"), checkpoint, "external")
    graph, file = tmp_path / "graph", tmp_path / "a.onnx_adapter"
    build_graph(checkpoint, graph, Quantization())
    write_adapter(weights, add_slots(graph, packed=checkpoint.architecture.packed), file)
    opened = source(checkpoint, graph, bare_adapter("a", file, weights.sha256))
    found = rows(opened, "a")
    own, other = (
        np.mean([np.corrcoef(row, expected[end - 1])[0, 1] for row, end in zip(found, CUTS[1:], strict=True)])
        for expected in (reference(checkpoint, weights.folder), reference(checkpoint))
    )
    assert own > max(0.4, other + 0.3)


@pytest.mark.parametrize("checkpoint", ["gemma3", "phi4-mini", "smollm3"], indirect=True)
def test_merged_is_exact_where_the_graph_is_unlike_the_model(
    checkpoint: Checkpoint, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """Packed projections, tied tables, norms with an offset: the builder takes the merged weights apart."""
    adapter = make_adapter(checkpoint, target_modules="all-linear", use_rslora=True)
    weights = read_adapter(adapter, checkpoint, "merged")
    with merged_weights(checkpoint, weights, scratch=tmp_path) as merged:
        build_graph(checkpoint, tmp_path / "graph", Quantization(bits=32), weights=merged)
    found = rows(source(checkpoint, tmp_path / "graph"))
    assert max(differences(found, reference(checkpoint, adapter))) < 1e-4


def test_every_architecture_is_tried() -> None:
    models = {AutoModelForCausalLM.from_config(shape.config()).__class__.__name__ for shape in SHAPES.values()}
    assert models == ARCHITECTURES.keys()


def test_beyond_the_short_factors_context_phi4_mini_ends(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", SHAPES["phi4-mini"])
    assert read_checkpoint(tmp_path / "base").context_length == 96


REFUSED = {
    # The builder knows these, and their graphs are not exact: what was measured is in docs/limits.md.
    "OlmoForCausalLM": {},
    "NemotronForCausalLM": {},
    "PhiForCausalLM": {},
    "HunYuanDenseV1ForCausalLM": {},
    "GptOssForCausalLM": {},
    "Lfm2ForCausalLM": {},
    "PaliGemmaForConditionalGeneration": {},
    "NoSuchModel": {},
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_architecture_is_refused_by_name_before_a_weight_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [name]}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name}.*Qwen2ForCausalLM.*docs/limits.md"):
        read_checkpoint(tmp_path)


VARIANTS: dict[str, tuple[Shape, str]] = {
    "a window where transformers has none": (shape("llama", sliding_window=16), "sliding_window: found 16"),
    "linear rope": (
        shape("llama", rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
        "rope_type: found 'linear'; expected 'default' or 'llama3'",
    ),
    "long rope with a factor of its own": (
        shape(
            "phi3",
            replace(BASE, hidden=128),
            rope_parameters={**LONG, "attention_factor": 1.5},
            original_max_position_embeddings=96,
        ),
        "attention_factor: found 1.5",
    ),
    "a rotated part of the head": (
        shape("qwen2", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        "partial_rotary_factor: found 0.5",
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_that_the_graph_would_drop_is_refused_by_field(name: str, tmp_path: Path) -> None:
    variant, said = VARIANTS[name]
    write_checkpoint(tmp_path / "base", variant)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path / "base")
