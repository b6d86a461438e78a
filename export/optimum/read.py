"""A folder that `optimum-cli export onnx` wrote → what its graph computes, or a refusal that names the node."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx_ir as ir
from transformers import PretrainedConfig

from dualtune_edge.export.base.architectures import ARCHITECTURES, Architecture
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.optimum.attention import UnprovenValues, read_attention, windows
from dualtune_edge.export.optimum.blocks import Reading, Sizes, read_linear, read_mlp, read_norm
from dualtune_edge.export.optimum.claims import Claims, Probe
from dualtune_edge.export.optimum.cursor import FIX, Cursor
from dualtune_edge.export.optimum.description import Decoder, Layer
from dualtune_edge.export.optimum.rotary import check_angles, run_tables
from dualtune_edge.export.optimum.weights import WeightBook
from dualtune_edge.toolkit.errors import GraphError
from dualtune_edge.toolkit.files import sha256_file

MODEL: Final = "model.onnx"


def read_folder(folder: Path, checkpoint: Checkpoint) -> Decoder:
    """Read Optimum's graph of a checkpoint: each node is accounted for, each weight compared with the checkpoint's.

    Raises:
        GraphError: the folder holds no such graph, another architecture's, another checkpoint's, or one in which
            something is not recognized: it names the node and its layer.

    """
    path = folder / MODEL
    if not checkpoint.architecture.optimum:
        raise GraphError(
            f"{folder}, {checkpoint.architecture.name}",
            found="an architecture whose graph by Optimum is not known",
            expected=f"one of {', '.join(name for name, row in ARCHITECTURES.items() if row.optimum)}",
            fix="Leave the graph out: it is then built by onnxruntime-genai's builder.",
        )
    graph = _load(path)
    config = checkpoint.config
    _check_interface(path, graph, checkpoint)
    cursor = Cursor(path, graph)
    weights = WeightBook(cursor, checkpoint)
    reading = Reading(cursor, Claims(cursor), weights, _sizes(config, checkpoint))
    decoder = _read(reading, config, checkpoint)
    weights.refuse_unused()
    _refuse_unseen(cursor)
    return decoder


def _load(path: Path) -> ir.Graph:
    if not path.is_file():
        raise GraphError(
            str(path.parent),
            found=f"no {MODEL}",
            expected="a folder that `optimum-cli export onnx --task text-generation-with-past` wrote",
            fix="Check the path.",
        )
    try:
        model = ir.load(path)
    except Exception as error:  # noqa: BLE001 - protobuf's errors have no public root
        raise GraphError(
            str(path), found=f"{type(error).__name__}: {error}", expected="an ONNX model", fix="Export it again."
        ) from None
    if model.functions:
        raise GraphError(str(path), found="model-local functions", expected="plain operators", fix=FIX)
    return model.graph


def _check_interface(path: Path, graph: ir.Graph, checkpoint: Checkpoint) -> None:
    layers = range(checkpoint.cache.layers)
    caches = {f"{layer}.{which}" for layer in layers for which in ("key", "value")}
    inputs = {"input_ids", "attention_mask"} | {f"past_key_values.{name}" for name in caches}
    outputs = {"logits"} | {f"present.{name}" for name in caches}
    for kind, names, expected in (
        ("input", {value.name for value in graph.inputs} - {"position_ids"}, inputs),
        ("output", {value.name for value in graph.outputs}, outputs),
    ):
        if different := sorted(str(name) for name in names ^ expected):
            raise GraphError(
                f"{path}, {kind} {different[0]}",
                found="missing" if different[0] in expected else "a name that is not known",
                expected=f"the {kind}s of text-generation-with-past, for {len(layers)} layers",
                fix="Export it with --task text-generation-with-past.",
            )
    for value in graph.inputs:
        dtype = ir.DataType.FLOAT if (value.name or "").startswith("past") else ir.DataType.INT64
        if value.dtype != dtype:
            raise GraphError(
                f"{path}, input {value.name}", found=str(value.dtype), expected=str(dtype),
                fix="Export it in fp32: --dtype fp32.",
            )  # fmt: skip


def _sizes(config: PretrainedConfig, checkpoint: Checkpoint) -> Sizes:
    return Sizes(
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=checkpoint.cache.heads,
        head=checkpoint.cache.head_dim,
        epsilon=config.rms_norm_eps,
    )


def _read(reading: Reading, config: PretrainedConfig, checkpoint: Checkpoint) -> Decoder:
    cursor, claims = reading.cursor, reading.claims
    logits = next(value for value in cursor.graph.outputs if value.name == "logits")
    _, normalized = read_linear(reading, logits, HEAD)
    norm, value = read_norm(reading, normalized, "model.norm.weight")
    rotated = int(
        reading.sizes.head * float((getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0))
    )
    unproven = UnprovenValues()
    layers: list[Layer] = []
    for index in reversed(range(checkpoint.cache.layers)):
        layer, value = _read_layer(reading, value, index, rotated, unproven)
        layers.insert(0, layer)
    scale = _read_embedding(reading, value, checkpoint.architecture)
    probes = _probes(config, checkpoint)
    claims.verify(probes)
    candidates = (None, *([config.sliding_window] if getattr(config, "sliding_window", None) else []))
    seen = windows(claims, unproven, candidates, probes)[::-1]
    tables = unproven.tables[::-1]
    rotaries = run_tables(claims, [table for table in tables if table], probes, checkpoint.context_length)
    check_angles(cursor, config, checkpoint, [rotaries[table] if table else None for table in tables])
    order = list(rotaries)
    layers = [
        replace(
            layer,
            attention=replace(
                layer.attention,
                window=window,
                rotary=order.index(table) if table else None,
                scale=_scale(cursor, config, reading.sizes, layer.attention.scale),
            ),
        )
        for layer, window, table in zip(layers, seen, tables, strict=True)
    ]
    return Decoder(sha256_file(cursor.path), scale, tuple(rotaries.values()), tuple(layers), norm)


def _read_layer(
    reading: Reading, value: ir.Value | None, index: int, rotated: int, unproven: UnprovenValues
) -> tuple[Layer, ir.Value | None]:
    """One layer, from its output. Returns it, and its input."""
    cursor, hidden = reading.cursor, ("B", "S", reading.sizes.hidden)
    path = f"model.layers.{index}"
    sandwiched = f"{path}.pre_feedforward_layernorm.weight" in reading.weights
    names = ("pre_feedforward", "post_attention", "post_feedforward") if sandwiched else ("post_attention", "", "")
    before_mlp, after_attention, after_mlp = (f"{path}.{name}_layernorm.weight" if name else "" for name in names)

    middle, branch = cursor.node(value, "Add").inputs
    after = None
    if after_mlp:
        after, branch = read_norm(reading, branch, after_mlp)
    mlp, x = read_mlp(reading, branch, f"{path}.mlp")
    reading.claims.shape(x, *hidden)
    mlp_norm, source = read_norm(reading, x, before_mlp)
    cursor.same(source, middle, "a norm of what the MLP is added to")

    first, branch = cursor.node(middle, "Add").inputs
    after_first = None
    if after_attention:
        after_first, branch = read_norm(reading, branch, after_attention)
    attention, x = read_attention(reading, branch, index, rotated, unproven)
    reading.claims.shape(x, *hidden)
    norm, source = read_norm(reading, x, f"{path}.input_layernorm.weight")
    cursor.same(source, first, "a norm of what attention is added to")
    for hidden_state in (value, middle, first):
        reading.claims.shape(hidden_state, *hidden)
    return Layer(norm, attention, after_first, mlp_norm, mlp, after), first


def _read_embedding(reading: Reading, value: ir.Value | None, architecture: Architecture) -> float:
    """Read the embeddings; the constant by which they are multiplied, 1 for none."""
    cursor = reading.cursor
    expected = reading.sizes.hidden**0.5 if architecture.scaled_embedding else 1.0
    reading.claims.shape(value, "B", "S", reading.sizes.hidden)
    scale = 1.0
    if cursor.is_op(value, "Mul"):
        node = cursor.node(value, "Mul")
        value, scale = node.inputs[0], cursor.number(node.inputs[1], "a constant factor of the embeddings")
    if not math.isclose(scale, expected, rel_tol=1e-6):
        raise cursor.refusal(value, f"embeddings times {expected}")
    gather = cursor.node(value, "Gather")
    reading.claims.shape(value, "B", "S", reading.sizes.hidden)
    reading.weights.table(gather.inputs[0], f"{EMBEDDING}.weight")
    if gather.inputs[1] is None or gather.inputs[1].name != "input_ids":
        raise cursor.refusal(value, "the embeddings of input_ids")
    return scale


def _probes(config: PretrainedConfig, checkpoint: Checkpoint) -> tuple[Probe, ...]:
    """A prefill, a batch, one token beyond a window, and the end of the context."""
    window = getattr(config, "sliding_window", None) or 16
    beyond = min(window + 2, checkpoint.context_length - 3)
    return Probe(1, 0, 6), Probe(2, 3, 4), Probe(1, beyond, 3), Probe(1, checkpoint.context_length - 2, 2)


def _scale(cursor: Cursor, config: PretrainedConfig, sizes: Sizes, scale: float) -> float:
    """The exact scale of attention: the graph has its roots on q and k, rounded to float32."""
    expected = float((getattr(config, "query_pre_attn_scalar", None) or sizes.head) ** -0.5)
    if not math.isclose(scale, expected, rel_tol=1e-6):
        raise GraphError(
            f"{cursor.path}, attention", found=f"a scale of {scale}", expected=f"{expected}, by config.json", fix=FIX
        )
    return expected


def _refuse_unseen(cursor: Cursor) -> None:
    """Raise if an output depends on a node that was not read."""
    reached: set[ir.Node] = set()
    left = list(cursor.graph.outputs)
    while left:
        value = left.pop()
        node = value.producer()
        if node is None or node in reached:
            continue
        if node not in cursor.seen:
            raise cursor.refusal(value, "a node of the known patterns")
        reached.add(node)
        left += [operand for operand in node.inputs if operand is not None]
