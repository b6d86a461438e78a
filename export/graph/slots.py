"""LoRA slots: beside each linear module `y = xW + b` a low-rank path `y + (x A) B` whose A and B come from outside.

A and B are graph inputs, and initializers of rank 0 too, so the graph runs without an adapter. They are stored
transposed, A `[r, K]` and B `[N, r]`, where that is faster (docs/performance.md): onnxruntime divides a product of one
row among its threads by columns, and on x86-64 a column is read faster where it is a row in memory. On arm64 its kernel
for one row takes only matrices that are not transposed.

Each slot has its own symbolic rank: with a common one onnxruntime warns of adapters whose ranks differ. A packed QKV
projection has one slot: the A of its parts one below the other, their B block-diagonal. model.onnx.data is not changed.

The embedding's A is a table that the token ids look up. A bias is a pair of rank 1 beside its module's pair: A is 1,
and so is what it is applied to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from dualtune_edge.export.base import modules
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.graph.checks import check_slots
from dualtune_edge.export.graph.genai_config import GENAI_CONFIG
from dualtune_edge.export.graph.model_files import MODEL, replace_model
from dualtune_edge.export.graph.slot_map import Part, Slot, SlotMap
from dualtune_edge.toolkit.errors import GraphError

PACKED: Final = "qkv_proj"
_LINEAR: Final = re.compile(r"/model/layers\.(?P<layer>\d+)/(?:attn|mlp)/(?P<module>\w+)/MatMul(?:_Q\d)?")
_HEAD: Final = re.compile(r"/lm_head/MatMul(?:_Q\d)?")
_TABLE: Final = ("/model/embed_tokens/Slice", "/model/embed_tokens/GatherBlockQuantized", "/model/embed_tokens/Gather")
_OPS: Final = ("MatMul", "MatMulNBits", "FusedMatMul")  # the last is the head in rows
_ONE: Final = "lora.one"


@dataclass(frozen=True)
class _Heads:
    """Widths of the parts of a QKV projection."""

    q: int
    kv: int


@dataclass(frozen=True)
class _SlotNode:
    """A slot, and the node to whose output its path is added."""

    slot: Slot
    node: ir.Node


def add_slots(
    folder: Path, *, packed: bool = False, extras: frozenset[Extra] = frozenset(), transposed: bool = True
) -> SlotMap:
    """Give every linear module of the decoder layers a slot, in model.onnx; the slots, in the graph's order.

    Args:
        folder: holds model.onnx and genai_config.json.
        packed: the model has one module for q, k and v, and one for gate and up.
        extras: further slots: for the head, for the embedding, for a bias of every linear module.
        transposed: whether A and B are stored transposed.

    Raises:
        GraphError: the graph has no such modules or has slots already, or the result is not what it should be.

    """
    model = ir.load(folder / MODEL)
    slot_nodes = tuple(
        replace(slot_node, slot=replace(slot_node.slot, transposed=transposed))
        for slot_node in _slot_nodes(model.graph, _heads(folder), packed=packed, extras=extras)
    )
    slots = tuple(slot_node.slot for slot_node in slot_nodes)
    if not slots or any(slot.a in {value.name for value in model.graph.inputs} for slot in slots):
        raise GraphError(
            str(folder / MODEL),
            found="slots already" if slots else "no linear module of a decoder layer",
            expected="a graph fresh from the builder",
            fix="Build the graph again.",
        )
    for slot_node in slot_nodes:
        _attach(model.graph, slot_node)
    replace_model(model, folder)
    result = SlotMap(slots)
    check_slots(folder, result)
    return result


def add_spare_inputs(folder: Path, like: Path) -> None:
    """Add inputs to the model.onnx of `folder`: those of the slots in `like` that it lacks. Nothing reads them.

    A graph of the first layers then takes the adapters of all layers.
    """
    model = ir.load(folder / MODEL)
    present = {value.name for value in model.graph.inputs}
    for value in ir.load(like / MODEL).graph.inputs:
        if (value.name or "").startswith("lora.") and value.name not in present:
            model.graph.inputs.append(ir.Value(name=value.name, shape=value.shape, type=value.type))
    replace_model(model, folder)


def _slot_nodes(graph: ir.Graph, heads: _Heads, *, packed: bool, extras: frozenset[Extra]) -> Iterator[_SlotNode]:
    """All slots with their nodes, in the graph's order, which is that of the layers."""
    names = modules.in_layer(packed=packed)
    for node in graph:
        match = _LINEAR.fullmatch(node.name or "")
        if node.op_type in _OPS and match and match["module"] in names:
            slot = _slot(node, int(match["layer"]), match["module"], names[match["module"]], heads)
            yield _SlotNode(slot, node)
            if "bias" in extras:
                yield _SlotNode(Slot(f"{slot.name}.bias", 1, slot.outputs, slot.parts, "one"), node)
        elif "head" in extras and node.op_type in _OPS and _HEAD.fullmatch(node.name or ""):
            inputs, outputs = _sizes(node)
            yield _SlotNode(Slot("lora.lm_head", inputs, outputs, (Part(modules.HEAD, 0, outputs),)), node)
    if "embedding" in extras:
        yield _embedding(graph)


def _embedding(graph: ir.Graph) -> _SlotNode:
    nodes = {node.name: node for node in graph}
    table = next((nodes[name] for name in _TABLE if name in nodes), None)
    logits = next((value.shape for value in graph.outputs if value.name == "logits"), None)
    shape = table.outputs[0].shape if table else None
    if table is None or shape is None or logits is None:
        raise GraphError(
            MODEL,
            found="no embedding of a known shape",
            expected=f"one of {', '.join(_TABLE)}",
            fix="Export the adapter with LoRA on the embedding with `mode: merged`.",
        )
    vocabulary, hidden = int(logits[2]), int(shape[2])
    return _SlotNode(Slot("lora.embed_tokens", vocabulary, hidden, (Part(modules.EMBEDDING, 0, hidden),), "ids"), table)


def _heads(folder: Path) -> _Heads:
    decoder = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]["decoder"]
    size = decoder["head_size"]
    return _Heads(decoder["num_attention_heads"] * size, decoder["num_key_value_heads"] * size)


def _slot(node: ir.Node, layer: int, name: str, parts: tuple[str, ...], heads: _Heads) -> Slot:
    inputs, outputs = _sizes(node)
    expected = heads.q + 2 * heads.kv if name == PACKED else outputs
    widths = (heads.q, heads.kv, heads.kv) if len(parts) == 3 else (outputs,)
    if expected != outputs:
        raise GraphError(
            f"{node.name}",
            found=f"{outputs} columns",
            expected=f"{heads.q} + {heads.kv} + {heads.kv}: the heads of q, k and v",
            fix="Report this with the versions of the packages: the builder packs in another way than it did.",
        )
    # gate_up_proj is gate's outputs, then up's.
    first = outputs if parts == ("mlp.gate_up_proj",) and name == "up_proj" else 0
    return Slot(f"lora.{layer}.{name}", inputs, outputs, tuple(_parts(layer, parts, widths, first)))


def _parts(layer: int, parts: tuple[str, ...], widths: tuple[int, ...], first: int) -> Iterator[Part]:
    start = 0
    for module, width in zip(parts, widths, strict=True):
        yield Part(modules.path(layer, module), start, width, first)
        start += width


def _sizes(node: ir.Node) -> tuple[int, int]:
    """(K, N) of `x[…, K] W[K, N]`."""
    if node.op_type == "MatMulNBits":
        return node.attributes["K"].as_int(), node.attributes["N"].as_int()
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None  # noqa: S101, PT018 - an initializer has a shape
    rows, columns = weight.shape.numpy()
    return (int(columns), int(rows)) if node.op_type == "FusedMatMul" else (int(rows), int(columns))


def _attach(graph: ir.Graph, slot_node: _SlotNode) -> None:
    """Add the low-rank path after the module's bias, where it has one: PEFT adds in that order too."""
    slot, last = slot_node.slot, _last(slot_node)
    y = last.outputs[0]
    a, b = _input(graph, slot.a, slot.a_shape), _input(graph, slot.b, slot.b_shape)
    users = list(y.uses())
    prefix = f"/{slot.name.replace('.', '/')}"
    if slot.operand == "ids":
        down = ir.node("Gather", [a, _named(graph, "input_ids")], name=f"{prefix}/A")
    else:
        x = _one(graph) if slot.operand == "one" else slot_node.node.inputs[0]
        down = _product(slot, x, a, name=f"{prefix}/A")
    up = _product(slot, down.outputs[0], b, name=f"{prefix}/B")
    total = ir.node("Add", [y, up.outputs[0]], name=f"{prefix}/Add")
    for node in (down, up, total):
        node.outputs[0].name = f"{node.name}/output_0"
        node.outputs[0].dtype = ir.DataType.FLOAT
    total.outputs[0].shape = y.shape
    for user, index in users:
        user.replace_input_with(index, total.outputs[0])
    graph.insert_after(last, [down, up, total])
    if y.is_graph_output():
        _take_over(graph, y, total.outputs[0])


def _product(slot: Slot, x: ir.Value | None, weight: ir.Value, name: str) -> ir.Node:
    if not slot.transposed:
        return ir.node("MatMul", [x, weight], name=name)
    # An operator of onnxruntime: ONNX's MatMul cannot transpose, and its Gemm takes no batch.
    return ir.node("FusedMatMul", [x, weight], attributes={"transB": 1}, domain="com.microsoft", name=name)


def _take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make `new` the graph's output in place of `old`, with its name."""
    index = next(at for at, value in enumerate(graph.outputs) if value is old)
    graph.outputs[index] = new
    old.name, new.name = new.name, old.name


def _last(slot_node: _SlotNode) -> ir.Node:
    """The node to whose output the path is added: the module, its bias, or the slot that was added before."""
    node = slot_node.node if slot_node.slot.operand == "ids" else _after_bias(slot_node.node)
    if slot_node.slot.operand == "one":
        node = next(use.node for use in node.outputs[0].uses() if (use.node.name or "").startswith("/lora/"))
    return node


def _one(graph: ir.Graph) -> ir.Value:
    if _ONE in graph.initializers:
        return graph.initializers[_ONE]
    tensor = ir.tensor(np.ones((1, 1), dtype=np.float32), name=_ONE)
    value = ir.Value(name=_ONE, shape=ir.Shape([1, 1]), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    graph.register_initializer(value)
    return value


def _named(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for value in graph.inputs if value.name == name)


def _after_bias(node: ir.Node) -> ir.Node:
    users = list(node.outputs[0].uses())
    if len(users) == 1 and users[0].node.op_type == "Add":
        add = users[0].node
        other = add.inputs[1 - users[0].idx]
        if other is not None and other.is_initializer():
            return add
    return node


def _input(graph: ir.Graph, name: str, shape: tuple[int | str, int | str]) -> ir.Value:
    """An input that may be left out: its default has rank 0 and adds nothing."""
    empty = np.zeros([size if isinstance(size, int) else 0 for size in shape], dtype=np.float32)
    value = ir.Value(
        name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=ir.tensor(empty, name=name)
    )
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value
