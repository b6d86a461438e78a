"""A checkpoint's config for onnxruntime-genai's builder, where the builder reads it differently from transformers.

Each line below was measured: without it the builder fails, or the graph's logits are not the model's. `correct` changes
in the finished graph what a config cannot say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from transformers import PretrainedConfig

from dualtune_edge.export.base.architectures import Architecture, all_layers_slide, rope_parameters
from dualtune_edge.export.graph.model_files import MODEL, replace_model
from dualtune_edge.toolkit.errors import GraphError

# A sliding window is an attribute of attention. Without this option the KV cache slides too, and a state cannot be
# rewound.
OPTIONS: Final = ("windowed_kv_cache=false",)
_SCALE: Final = "/model/embed_tokens/Mul"
_COS, _SIN = 7, 8  # inputs of GroupQueryAttention


def adapt(config: PretrainedConfig) -> None:
    """Change the config that the builder was given, and only that: weights are loaded by the checkpoint's."""
    first, *local = rope_parameters(config)
    if local:  # Gemma 3: parameters for each type of layer, where the builder expects one set and one number
        config.rope_local_base_freq = local[0]["rope_theta"]
    config.rope_parameters = {**first, "type": first.get("rope_type", "default")}
    if first.get("rope_type") != "longrope" and hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = config.max_position_embeddings  # or it takes Phi-3 for long RoPE
    if all_layers_slide(config):
        config.layer_types = ["sliding_attention"] * config.num_hidden_layers  # Mistral and Phi-3 say no type
    if hasattr(config, "no_rope_layers"):
        config.no_rope_layers = [1] * config.num_hidden_layers  # with 0 it asks for positions; see `correct`


def correct(folder: Path, architecture: Architecture, config: PretrainedConfig) -> None:
    """Rewrite model.onnx where the builder rounds a factor or rotates a layer that has no positions.

    Args:
        folder: holds the builder's model.onnx and model.onnx.data; only the first is changed.
        architecture: the checkpoint's.
        config: the checkpoint's.

    Raises:
        GraphError: the nodes are not where the builder is known to put them.

    """
    unrotated = [layer for layer, rope in enumerate(getattr(config, "no_rope_layers", None) or ()) if not rope]
    if not unrotated and not architecture.scaled_embedding:
        return
    path = folder / MODEL
    model = ir.load(path)
    nodes = {node.name: node for node in model.graph}
    for layer in unrotated:
        _stop_rotating(_node(nodes, f"/model/layers.{layer}/attn/GroupQueryAttention", path))
    if architecture.scaled_embedding:
        _scale_exactly(model.graph, _node(nodes, _SCALE, path), config.hidden_size)
    replace_model(model, folder)


def _node(nodes: dict[str | None, ir.Node], name: str, path: Path) -> ir.Node:
    if name not in nodes:
        raise GraphError(
            str(path),
            found=f"no node {name}",
            expected="the builder's names",
            fix="Report this with the versions of the packages: the builder writes another graph than it did.",
        )
    return nodes[name]


def _stop_rotating(attention: ir.Node) -> None:
    """SmolLM3 leaves some layers without positions."""
    attention.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 0)
    for index in (_COS, _SIN):
        attention.replace_input_with(index, None)


def _scale_exactly(graph: ir.Graph, mul: ir.Node, hidden: int) -> None:
    """Gemma multiplies embeddings by the root of their size; the builder rounds it to two decimals."""
    name = "model.embed_tokens.scale"
    scale = np.array(hidden**0.5, dtype=np.float32)
    value = ir.Value(
        name=name,
        shape=ir.Shape([]),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(scale, name=name),
    )
    graph.register_initializer(value)
    mul.replace_input_with(1, value)
