"""Post-conditions of the passes, read from the files that they wrote.

The builder ignores options that it does not know, and quantizers skip what they cannot quantize; neither reports it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
import onnx_ir as ir
import onnxruntime

from dualtune_edge.export.graph.builder import builders_algorithm
from dualtune_edge.export.graph.genai_config import GENAI_CONFIG
from dualtune_edge.export.graph.model_files import DATA, MODEL
from dualtune_edge.export.graph.slot_map import Slot, SlotMap
from dualtune_edge.toolkit.bundle.quantization import Quantization, sensitive_layers
from dualtune_edge.toolkit.errors import GraphError

LINEAR: Final = ("qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # of each layer, as the builder names them
_LAYER_NODE: Final = re.compile(r"/model/layers\.(\d+)/(?:attn|mlp)/(\w+)/MatMul(?:_Q\d)?")
_SENSITIVE: Final = ("qkv_proj", "down_proj")  # modules that have `sensitive_bits`
_GROUPED: Final = re.compile(r".*_Q\dG\d+")  # weights' names by rtn and k_quant; those by default end after the digit


@dataclass(frozen=True)
class _Bits:
    """The number of bits of every weight in a graph."""

    quantization: Quantization
    layers: int

    def of(self, node: str) -> int:
        """The number of bits of the node's weights."""
        match = _LAYER_NODE.fullmatch(node)
        bits: int | None = None
        if match and match[2] in _SENSITIVE and int(match[1]) in sensitive_layers(self.layers):
            bits = self.quantization.sensitive_bits
        elif node.startswith("/lm_head/"):
            bits = self.quantization.lm_head_bits
        return bits or self.quantization.bits


def check_build(folder: Path, quantization: Quantization, *, tied: bool, like: Path | None = None) -> None:
    """Check a graph fresh from the builder.

    Args:
        folder: holds model.onnx and genai_config.json.
        quantization: how the weights should be stored.
        tied: the checkpoint has one table for embedding and head; in 4 bits the graph has one too.
        like: a folder with the graph from which weights were copied; it may have more layers.

    Raises:
        GraphError: names the node, what it has and what is expected.

    """
    graph = ir.load(folder / MODEL).graph
    _check_layers(graph, _layers(folder))
    _check_logits(graph)
    _check_external(graph)
    if quantization.bits == 32:
        _check_float(graph)
    else:
        bits = _Bits(quantization, _layers(like or folder))  # which of them are sensitive depends on their number
        for node in graph:
            _check_quantized(node, quantization, bits.of(node.name or ""))
    if quantization.bits == 4 and tied:
        _check_shared(graph)


def check_onnx(path: Path) -> None:
    """Let ONNX's own checker read a finished graph; weights beside it are not loaded.

    Raises:
        GraphError: what the checker found.

    """
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # noqa: BLE001 - the checker raises its own error, protobuf's and ValueError
        raise GraphError(
            str(path),
            found=str(error).strip().splitlines()[0],
            expected="a graph that ONNX's checker accepts",
            fix="Report this with the versions of the packages.",
        ) from None


def check_slots(folder: Path, slots: SlotMap) -> None:
    """Check that every slot is beside its module, empty by default, and that there is no other.

    Raises:
        GraphError: names the slot, what was found and what was expected.

    """
    graph = ir.load(folder / MODEL).graph
    inputs = {value.name or "": value for value in graph.inputs}
    expected = {name for slot in slots.slots for name in (slot.a, slot.b)}
    present = {name for name in inputs if name.startswith("lora.")}
    _require("LoRA inputs", present == expected, sorted(present ^ expected)[:2], "one A and one B a slot, and no other")
    for slot in slots.slots:
        for name, shape in ((slot.a, slot.a_shape), (slot.b, slot.b_shape)):
            _check_input(inputs[name], shape)
        _check_place(slot, inputs[slot.a], inputs[slot.b])
    linear = [node for node in graph if _LAYER_NODE.fullmatch(node.name or "")]
    layered = [slot for slot in slots.slots if slot.operand == "hidden" and slot.name != "lora.lm_head"]
    _require("slots", len(linear) == len(layered), f"{len(layered)}", f"one for each of {len(linear)} modules")


def check_adapter(path: Path, slots: SlotMap) -> None:
    """Check a written adapter: one tensor for every input of every slot, in fp32 and of one rank a slot, and no other.

    Raises:
        GraphError: names the tensor, what was found and what was expected.

    """
    parameters = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
    names = {name for slot in slots.slots for name in (slot.a, slot.b)}
    _require(
        f"{path.name}, tensors",
        parameters.keys() == names,
        sorted(parameters.keys() ^ names)[:2],
        "one for every input of every slot, and no other",
    )
    for slot in slots.slots:
        a, b = parameters[slot.a], parameters[slot.b]
        rank = a.shape()[slot.a_shape.index(slot.rank)]
        for name, value, shape in ((slot.a, a, slot.a_shape), (slot.b, b, slot.b_shape)):
            stored = (value.element_type(), list(value.shape()))
            expected = (int(ir.DataType.FLOAT), [size if isinstance(size, int) else rank for size in shape])
            _require(f"{path.name}, {name}", stored == expected, stored, f"(ONNX type, shape) {expected}")


def _layers(folder: Path) -> int:
    decoder = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8"))["model"]["decoder"]
    return int(decoder["num_hidden_layers"])


def _check_layers(graph: ir.Graph, layers: int) -> None:
    matches = [match for node in graph if (match := _LAYER_NODE.fullmatch(node.name or ""))]
    present = Counter((int(match[1]), match[2]) for match in matches)
    expected = Counter((layer, module) for layer in range(layers) for module in LINEAR)
    different = sorted(((present - expected) + (expected - present)).keys())
    _require(f"{MODEL}, linear modules", not different, different[:3], f"{', '.join(LINEAR)}, once a layer")
    attention = sum(node.op_type == "GroupQueryAttention" for node in graph)
    _require(f"{MODEL}, GroupQueryAttention", attention == layers, attention, f"{layers}, one a layer")


def _check_logits(graph: ir.Graph) -> None:
    logits = next((value for value in graph.outputs if value.name == "logits"), None)
    shape = None if logits is None or logits.shape is None else list(logits.shape)
    last_only = shape is not None and len(shape) == 3 and shape[1] == 1
    _require(f"{MODEL}, logits", last_only, shape, "[batch, 1, vocabulary]: the last token's")


def _check_external(graph: ir.Graph) -> None:
    for value in graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            _require(f"{MODEL}, {value.name}", str(tensor.location) == DATA, tensor.location, f"its data in {DATA}")


def _check_float(graph: ir.Graph) -> None:
    quantized = [node.name for node in graph if "NBits" in node.op_type or "Quantize" in node.op_type]
    _require(f"{MODEL}, 32 bits", not quantized, quantized[:2], "no quantized node")
    for value in graph.initializers.values():
        _require(f"{MODEL}, {value.name}", value.dtype == ir.DataType.FLOAT, value.dtype, "FLOAT")


def _check_quantized(node: ir.Node, quantization: Quantization, bits: int) -> None:
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        constant = weight is not None and weight.is_initializer() and not weight.is_graph_input()  # a slot is both
        _require(f"{MODEL}, {node.name}", not constant, "weights that are not quantized", f"{bits} bits")
    if node.op_type != "MatMulNBits":
        return
    attributes = {key: node.attributes[key].as_int() for key in ("bits", "block_size") if key in node.attributes}
    level = node.attributes.get("accuracy_level")  # left out where it is 0
    attributes["accuracy_level"] = 0 if level is None else level.as_int()
    expected = {"bits": bits, "block_size": quantization.block_size, "accuracy_level": quantization.accuracy_level}
    _require(f"{MODEL}, {node.name}", attributes == expected, attributes, str(expected))
    _check_stored(node, bits, quantization.block_size)
    grouped = _GROUPED.fullmatch(node.inputs[1].name or "") if node.inputs[1] else None
    zero_points = len(node.inputs) > 3 and node.inputs[3] is not None
    algorithm = "default" if not grouped else "k_quant" if zero_points else "rtn"
    expected_algorithm = builders_algorithm(quantization)
    _require(f"{MODEL}, {node.name}", algorithm == expected_algorithm, algorithm, expected_algorithm)


def _check_stored(node: ir.Node, bits: int, block_size: int) -> None:
    """Check the tensors' sizes against the attributes: one scale a block, weights and zero points in `bits` bits."""
    depth, width = node.attributes["K"].as_int(), node.attributes["N"].as_int()
    blocks = -(-depth // block_size)
    sizes = [width * blocks * block_size * bits // 8, width * blocks, width * -(-blocks * bits // 8)]
    stored = [value.const_value.size for value in node.inputs[1:4] if value and value.const_value is not None]
    where = f"{MODEL}, {node.name}, weights, scales and zero points"
    _require(where, stored == sizes[: len(stored)], stored, str(sizes))


def _check_shared(graph: ir.Graph) -> None:
    """Check that a tied table is stored once: the embedding reads the head's weights, reshaped."""
    head = next((node for node in graph if node.op_type == "MatMulNBits" and "lm_head" in (node.name or "")), None)
    table = next((node for node in graph if node.op_type == "GatherBlockQuantized"), None)
    reshape = table.inputs[0].producer() if table and table.inputs[0] else None
    source = reshape.inputs[0] if reshape else table.inputs[0] if table else None
    shared = head is not None and source is not None and source is head.inputs[1]
    _require(f"{MODEL}, embedding", shared, source.name if source else "no quantized table", "the head's own weights")
    if head is None or table is None:
        return  # _require has raised
    of_table, of_head = (
        {key: node.attributes[key].as_int() for key in ("bits", "block_size")} for node in (table, head)
    )
    _require(f"{MODEL}, embedding", of_table == of_head, of_table, str(of_head))


def _check_input(value: ir.Value, shape: tuple[int | str, int | str]) -> None:
    sizes = [size if isinstance(size, int) else size.value for size in value.shape or ()]
    _require(f"{MODEL}, {value.name}", sizes == list(shape), sizes, str(list(shape)))
    _require(f"{MODEL}, {value.name}", value.dtype == ir.DataType.FLOAT, value.dtype, "FLOAT: adapters stay exact")
    empty = value.is_initializer() and value.const_value is not None and value.const_value.size == 0
    _require(f"{MODEL}, {value.name}", empty, "another default", "a default of rank 0")


def _check_place(slot: Slot, a: ir.Value, b: ir.Value) -> None:
    """Check that the graph computes Linear(x) [+ bias] + (x A) B, and that nothing else reads A or B."""
    where = f"{MODEL}, {slot.name}"
    down, up = _only_user(a), _only_user(b)
    total = _only_user(up.outputs[0]) if up else None
    chained = down and up and total and up.inputs[0] is down.outputs[0]
    _require(where, bool(chained), "A and B apart", "MatMul(MatMul(x, A), B) added to the module")
    if down is None or total is None:
        return  # _require has raised
    operators = (_operator(down), _operator(up), _operator(total))
    product = "FusedMatMul, transposed" if slot.transposed else "MatMul"
    expected = ("Gather" if slot.operand == "ids" else product, product, "Add")
    _require(where, operators == expected, operators, f"A, then B, then Add: {expected}")
    before = total.inputs[0].producer() if total.inputs[0] else None
    if slot.operand == "one":
        pair = f"/{slot.name.removesuffix('.bias').replace('.', '/')}/Add"
        _require(where, before is not None and before.name == pair, before and before.name, f"added to {pair}")
        return
    if slot.operand == "ids":
        table = before is not None and (before.name or "").startswith("/model/embed_tokens/")
        _require(where, table, before and before.name, "added to the rows of the embedding's table")
        return
    _check_beside(slot, down, next(_linear_before(total.inputs[0]), None))


def _check_beside(slot: Slot, down: ir.Node, linear: ir.Node | None) -> None:
    """Check that the low-rank path reads what its module reads."""
    where = f"{MODEL}, {slot.name}"
    match = _LAYER_NODE.fullmatch(linear.name or "") if linear else None
    head = linear is not None and (linear.name or "").startswith("/lm_head/MatMul")
    name = f"lora.{match[1]}.{match[2]}" if match else "lora.lm_head" if head else None
    _require(where, name == slot.name, linear.name if linear else "no linear module", f"the module of {slot.name}")
    _require(where, linear is not None and linear.inputs[0] is down.inputs[0], "another input", "the module's x")


def _operator(node: ir.Node | None) -> str:
    if node is None:
        return "nothing"
    transposed = node.attributes.get("transB")
    return f"{node.op_type}, transposed" if transposed is not None and transposed.as_int() else node.op_type


def _only_user(value: ir.Value) -> ir.Node | None:
    users = list(value.uses())
    return users[0].node if len(users) == 1 else None


def _linear_before(value: ir.Value | None) -> Iterator[ir.Node]:
    """The node that makes this value, or what a bias is added to."""
    node = value.producer() if value else None
    if node is not None and node.op_type == "Add" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is not None:
        yield node


def _require(where: str, holds: bool, found: Any, expected: str) -> None:  # noqa: FBT001 - a condition, not an option
    if not holds:
        raise GraphError(
            where, found=str(found), expected=expected, fix="Report this with the versions of the packages."
        )
