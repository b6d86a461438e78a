"""LoRA slots: beside each linear module `y = xW + b` a low-rank path `y + (x A) B` whose A and B come from outside.

A `[K, r]` and B `[r, N]` are graph inputs and, so that the graph runs without an adapter, also initializers of rank 0.
Each slot has a symbolic rank of its own: shared, onnxruntime would warn where adapters differ. A packed QKV projection
has one slot: the A of its parts side by side, their B block-diagonal. Weights are left where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from dualtune_edge.export import modules
from dualtune_edge.export.graph.checks import MODEL, check_slots
from dualtune_edge.export.graph.genai_config import GENAI_CONFIG
from dualtune_edge.export.graph.slot_map import Part, Slot, SlotMap
from dualtune_edge.toolkit.errors import GraphError

PACKED: Final = "qkv_proj"
_LINEAR: Final = re.compile(r"/model/layers\.(?P<layer>\d+)/(?:attn|mlp)/(?P<module>\w+)/MatMul(?:_Q\d)?")
_OPS: Final = ("MatMul", "MatMulNBits")


@dataclass(frozen=True)
class _Heads:
    """Widths of the parts of a packed projection."""

    q: int
    kv: int


def add_slots(folder: Path) -> SlotMap:
    """Give every linear module of the decoder layers a slot; rewrites model.onnx, leaves model.onnx.data.

    Raises:
        GraphError: the graph has no such modules, has slots already, or came out otherwise than meant.

    """
    model = ir.load(folder / MODEL)
    heads = _heads(folder)
    # In the graph's order, which follows the layers.
    found = [(node, match) for node in model.graph if (match := _linear(node))]
    slots = tuple(_slot(node, int(match["layer"]), match["module"], heads) for node, match in found)
    if not slots or any(slot.a in {value.name for value in model.graph.inputs} for slot in slots):
        raise GraphError(
            str(folder / MODEL),
            found="slots already" if slots else "no linear module of a decoder layer",
            expected="a graph fresh from the builder",
            fix="Build the graph again.",
        )
    for (node, _), slot in zip(found, slots, strict=True):
        _attach(model.graph, node, slot)
    stage = folder / f"{MODEL}.partial"
    ir.save(model, stage)  # external tensors stay references to model.onnx.data
    stage.replace(folder / MODEL)
    result = SlotMap(slots)
    check_slots(folder, result)
    return result


def _linear(node: ir.Node) -> re.Match[str] | None:
    match = _LINEAR.fullmatch(node.name or "")
    return match if match and node.op_type in _OPS and match["module"] in {PACKED, *modules.BLOCKS} else None


def _heads(folder: Path) -> _Heads:
    decoder = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]["decoder"]
    size = decoder["head_size"]
    return _Heads(decoder["num_attention_heads"] * size, decoder["num_key_value_heads"] * size)


def _slot(node: ir.Node, layer: int, module: str, heads: _Heads) -> Slot:
    inputs, outputs = _sizes(node)
    widths = {"q_proj": heads.q, "k_proj": heads.kv, "v_proj": heads.kv} if module == PACKED else {module: outputs}
    slot = Slot(f"lora.{layer}.{module}", inputs, outputs, tuple(_parts(layer, widths)))
    if sum(widths.values()) != outputs:
        raise GraphError(
            f"{node.name}",
            found=f"{outputs} columns",
            expected=f"{' + '.join(map(str, widths.values()))}: the heads of q, k and v",
            fix="Report this: the builder packs otherwise than it did.",
        )
    return slot


def _parts(layer: int, widths: dict[str, int]) -> Iterator[Part]:
    start = 0
    for module, width in widths.items():
        yield Part(modules.path(layer, module), start, width)
        start += width


def _sizes(node: ir.Node) -> tuple[int, int]:
    """(K, N) of `x[…, K] W[K, N]`."""
    if node.op_type == "MatMulNBits":
        return node.attributes["K"].as_int(), node.attributes["N"].as_int()
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None  # noqa: S101, PT018 - an initializer has a shape
    rows, columns = weight.shape.numpy()
    return int(rows), int(columns)


def _attach(graph: ir.Graph, node: ir.Node, slot: Slot) -> None:
    """Add the low-rank path after the module's bias, where it has one: PEFT adds in that order too."""
    x, last = node.inputs[0], _after_bias(node)
    y = last.outputs[0]
    a, b = _input(graph, slot.a, (slot.inputs, slot.rank)), _input(graph, slot.b, (slot.rank, slot.outputs))
    users = list(y.uses())
    prefix = f"/{slot.name.replace('.', '/')}"
    down = ir.node("MatMul", [x, a], name=f"{prefix}/A")
    up = ir.node("MatMul", [down.outputs[0], b], name=f"{prefix}/B")
    total = ir.node("Add", [y, up.outputs[0]], name=f"{prefix}/Add")
    for each in (down, up, total):
        each.outputs[0].name = f"{each.name}/output_0"
        each.outputs[0].dtype = ir.DataType.FLOAT
    total.outputs[0].shape = y.shape
    for user, index in users:
        user.replace_input_with(index, total.outputs[0])
    graph.insert_after(last, [down, up, total])


def _after_bias(node: ir.Node) -> ir.Node:
    users = list(node.outputs[0].uses())
    if len(users) == 1 and users[0].node.op_type == "Add":
        add = users[0].node
        other = add.inputs[1 - users[0].idx]
        if other is not None and other.is_initializer():
            return add
    return node


def _input(graph: ir.Graph, name: str, shape: tuple[int | str, int | str]) -> ir.Value:
    """An input that may be left out: its default has rank 0 and so adds nothing."""
    empty = np.zeros([size if isinstance(size, int) else 0 for size in shape], dtype=np.float32)
    value = ir.Value(
        name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=ir.tensor(empty, name=name)
    )
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value
