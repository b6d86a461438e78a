"""What the builder reads of a config, and what is corrected in its graph. test_architectures proves the logits."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import pytest
from transformers import AutoConfig

from dualtune_edge.export.base.architectures import ARCHITECTURES
from dualtune_edge.export.graph.builder_config import adapt, correct
from dualtune_edge.toolkit.errors import GraphError


def config(model_type: str, **fields: Any) -> Any:
    return AutoConfig.for_model(model_type, num_hidden_layers=4, **fields)


def test_layers_of_mistral_get_their_type() -> None:
    windowed, full = config("mistral", sliding_window=16), config("mistral", sliding_window=None)
    adapt(windowed)
    adapt(full)
    assert windowed.layer_types == ["sliding_attention"] * 4
    assert getattr(full, "layer_types", None) is None


def test_gemma3s_two_rotary_embeddings_become_a_set_and_a_number() -> None:
    gemma = config("gemma3_text")
    both = gemma.rope_parameters
    adapt(gemma)
    assert gemma.rope_parameters["rope_theta"] == both["full_attention"]["rope_theta"]
    assert gemma.rope_local_base_freq == both["sliding_attention"]["rope_theta"]


def test_a_short_phi3_is_not_taken_for_a_long_one() -> None:
    phi = config("phi3", max_position_embeddings=8192, original_max_position_embeddings=4096)
    adapt(phi)
    assert phi.original_max_position_embeddings == 8192


def test_layers_without_positions_stop_rotating_and_the_others_do_not(float_graph: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(float_graph.folder, tmp_path / "copy"))
    correct(copy, ARCHITECTURES["SmolLM3ForCausalLM"], SimpleNamespace(no_rope_layers=[1, 0]))
    nodes = [node for node in ir.load(copy / "model.onnx").graph if node.op_type == "GroupQueryAttention"]
    assert [node.attributes["do_rotary"].as_int() for node in nodes] == [1, 0]
    assert [node.inputs[7] is None for node in nodes] == [False, True]


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("GemmaForCausalLM", SimpleNamespace(hidden_size=64)),
        ("SmolLM3ForCausalLM", SimpleNamespace(no_rope_layers=[1, 1, 0])),
    ],
)
def test_a_graph_of_other_names_is_refused(architecture: str, fields: Any, float_graph: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(float_graph.folder, tmp_path / "copy"))
    before = (copy / "model.onnx").read_bytes()
    with pytest.raises(GraphError, match="found no node /model/"):
        correct(copy, ARCHITECTURES[architecture], fields)
    assert (copy / "model.onnx").read_bytes() == before
