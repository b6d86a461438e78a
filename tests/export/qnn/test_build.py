"""Static graphs of every architecture against transformers; what they hold; what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import SHAPES, Shape, write_checkpoint
from transformers import AutoConfig, AutoModelForCausalLM

from dualtune_edge.export.base.architectures import ARCHITECTURES
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.qnn.build import build_static
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.static_engine import StaticEngine
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization
from dualtune_edge.toolkit.errors import CheckpointError

FORM = StaticGraph(chunks=(1, 16), kv_length=64)
INTEGERS = QdqQuantization(weight_bits=4, activation_bits=16, block_size=32)
TOKENS = tuple(int(token) for token in np.random.default_rng(1).integers(0, 256, 40))
SETTINGS = SessionSettings(intra_op_threads=1, spinning=False)
KINDS = ("llama", "mistral", "qwen2", "qwen3")


def engine(checkpoint: Checkpoint, folder: Path, *, integers: bool = False) -> StaticEngine:
    source = ModelSource(
        folder=folder,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache.model_copy(update={"dtype": "int16" if integers else "float32"}),
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        graph=FORM,
    )
    return StaticEngine(source, SETTINGS)


def reference(checkpoint: Checkpoint) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    with torch.no_grad():
        logits: np.ndarray = model.eval()(torch.tensor([TOKENS])).logits[0, -1].numpy()
    return logits


def test_every_architecture_is_tried() -> None:
    names = {AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model(kind))].__name__ for kind in KINDS}
    assert names == {name for name, row in ARCHITECTURES.items() if row.static}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_in_float32_it_is_transformers_own(kind: str, tied: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    shape = Shape(64, 128, 2, 4, 2, 288, 512, tied=tied, model_type=kind)
    write_checkpoint(tmp_path / "base", shape, dtype=torch.float32)
    checkpoint = read_checkpoint(tmp_path / "base")
    build_static(checkpoint, tmp_path / "static", FORM, None)
    with engine(checkpoint, tmp_path / "static") as opened:
        np.testing.assert_allclose(opened.forward(TOKENS), reference(checkpoint), atol=1e-4, rtol=0)


def test_in_integers_it_is_near(tiny: Checkpoint, tmp_path: Path) -> None:
    eight = INTEGERS.model_copy(update={"weight_bits": 8})
    build_static(tiny, tmp_path / "static", FORM, eight, prompts=[TOKENS])
    with engine(tiny, tmp_path / "static", integers=True) as opened:
        found = opened.forward(TOKENS)
    expected = reference(tiny)
    assert np.abs(found - expected).max() < 0.1 * expected.std()


def test_every_activation_and_matrix_is_in_integers(tiny: Checkpoint, tmp_path: Path) -> None:
    build_static(tiny, tmp_path / "static", FORM, INTEGERS, prompts=[TOKENS])
    for file in FORM.files:
        graph = onnx.load(tmp_path / "static" / file, load_external_data=False).graph
        made = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                continue
            read = [made[name].op_type for name in node.input if name in made]
            assert set(read) <= {"DequantizeLinear"}, node.name
            (user,) = [reader.op_type for reader in graph.node if node.output[0] in reader.input]
            assert user == "QuantizeLinear", node.name
        kinds = Counter(
            tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2 and "zero" not in tensor.name
        )
        assert kinds[onnx.TensorProto.INT4] == 7 * 2
        assert kinds[onnx.TensorProto.INT8] == 1  # the head
    data = onnx.external_data_helper.ExternalDataInfo
    places = [
        {
            tensor.name: (data(tensor).location, data(tensor).offset)
            for tensor in graph.initializer
            if tensor.external_data
        }
        for graph in (onnx.load(tmp_path / "static" / file, load_external_data=False).graph for file in FORM.files)
    ]
    assert places[0] == places[1]  # one copy of the weights


def test_another_architecture_is_refused_by_name(tiny: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Gemma2ForCausalLM"):
        build_static(replace(tiny, architecture=ARCHITECTURES["Gemma2ForCausalLM"]), tmp_path / "static", FORM, None)
    assert not (tmp_path / "static").exists()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 128}}, "rope"),
    ],
)  # fmt: skip
def test_what_a_static_graph_would_compute_otherwise_is_refused(
    settings: dict[str, object], field: str, tmp_path: Path
) -> None:
    kind = "llama" if field == "rope" else "qwen2"
    shape = replace(SHAPES["tiny"], model_type=kind, settings=settings)
    write_checkpoint(tmp_path / "base", shape, dtype=torch.float32)
    with pytest.raises(CheckpointError, match=field):
        build_static(read_checkpoint(tmp_path / "base"), tmp_path / "static", FORM, None)
