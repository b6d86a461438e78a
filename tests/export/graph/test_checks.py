"""Each check sees the one thing that is wrong with a graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from dualtune_edge.export.graph.checks import check_adapter, check_build, check_slots
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import GraphError

QKV = "/model/layers.1/attn/qkv_proj/MatMul_Q4"
Spoil = Callable[[ir.Graph], object]


@pytest.fixture
def copy(int4_graph: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int4_graph.folder, tmp_path / "copy"))


def spoilt(folder: Path, spoil: Spoil) -> Path:
    model = ir.load(folder / "model.onnx")
    spoil(model.graph)
    ir.save(model, folder / "model.onnx")
    return folder


def node(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph if node.name == name)


def value(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for value in graph.inputs if value.name == name)


def _attribute(name: str, number: int) -> Spoil:
    return lambda graph: node(graph, QKV).attributes.add(ir.AttrInt64(name, number))


def _rename(old: str, new: str) -> Spoil:
    return lambda graph: setattr(node(graph, old), "name", new)


def _all_logits(graph: ir.Graph) -> None:
    graph.outputs[0].shape = ir.Shape(("batch_size", "sequence_length", 288))


def _float_left(graph: ir.Graph) -> None:
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones((64, 64), np.float32), name="w"))
    graph.register_initializer(weight)
    graph.append(ir.node("MatMul", [node(graph, QKV).inputs[0], weight], name="/left"))


def _own_table(graph: ir.Graph) -> None:
    head = node(graph, "/lm_head/MatMul_Q4")
    table = next(node for node in graph if node.op_type == "Reshape")
    other = ir.Value(name="table", const_value=head.inputs[1].const_value)
    graph.register_initializer(other)
    table.replace_input_with(0, other)


BUILD: dict[str, tuple[Spoil, str]] = {
    "bits": (_attribute("bits", 8), "qkv_proj.*'bits': 8.*expected.*'bits': 4"),
    "block size": (_attribute("block_size", 64), "qkv_proj.*'block_size': 64"),
    "accuracy level": (lambda graph: node(graph, QKV).attributes.pop("accuracy_level"), "'accuracy_level': 0"),
    "a module lost": (_rename(QKV, "/other"), r"\(1, 'qkv_proj'\)"),
    "qkv apart": (_rename(QKV, QKV.replace("qkv", "q")), r"\(1, 'q_proj'\)"),
    "logits of every token": (_all_logits, "logits.*sequence_length"),
    "weights left in float": (_float_left, "/left.*not quantized"),
    "two tables": (_own_table, "embedding.*table.*head's own"),
}


@pytest.mark.parametrize("fault", BUILD)
def test_a_wrong_build_is_seen(fault: str, copy: Path) -> None:
    spoil, said = BUILD[fault]
    check_build(copy, Quantization(), tied=True)
    with pytest.raises(GraphError, match=said):
        check_build(spoilt(copy, spoil), Quantization(), tied=True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Quantization(bits=8), "bits"),
        (Quantization(bits=32), "no quantized node"),
        (Quantization(block_size=128), "block_size"),
        (Quantization(accuracy_level=0), "accuracy_level"),
        (Quantization(algorithm="rtn"), "expected rtn"),
        (Quantization(algorithm="k_quant"), "expected k_quant"),
    ],
)
def test_another_quantization_than_asked_for_is_seen(asked: Quantization, said: str, copy: Path) -> None:
    with pytest.raises(GraphError, match=said):
        check_build(copy, asked, tied=True)


def _default(graph: ir.Graph) -> None:
    value(graph, "lora.0.o_proj.A").const_value = ir.tensor(np.ones((1, 64), np.float32), name="lora.0.o_proj.A")


def _other_input(graph: ir.Graph) -> None:
    node(graph, "/lora/0/up_proj/A").replace_input_with(0, node(graph, "/lora/1/up_proj/A").inputs[0])


def _other_module(graph: ir.Graph) -> None:
    node(graph, "/lora/0/up_proj/Add").replace_input_with(0, node(graph, "/lora/0/gate_proj/Add").inputs[0])


def _unused(graph: ir.Graph) -> None:
    add = node(graph, "/lora/0/up_proj/Add")
    add.replace_input_with(1, add.inputs[0])


def _shared_rank(graph: ir.Graph) -> None:
    value(graph, "lora.1.o_proj.A").shape = ir.Shape(("r", 64))


def _not_transposed(graph: ir.Graph) -> None:
    node(graph, "/lora/0/up_proj/B").attributes.pop("transB")


SLOTS: dict[str, tuple[Spoil, str]] = {
    "a product of another layout": (_not_transposed, "lora.0.up_proj.*'FusedMatMul', 'Add'"),
    "a slot more": (lambda graph: graph.inputs.append(ir.Value(name="lora.9.x.A")), "lora.9.x.A"),
    "a slot less": (lambda graph: setattr(value(graph, "lora.0.o_proj.A"), "name", "other"), "lora.0.o_proj.A"),
    "a default that adds": (_default, "lora.0.o_proj.A.*rank 0"),
    "half precision": (lambda graph: setattr(value(graph, "lora.0.o_proj.A"), "dtype", ir.DataType.FLOAT16), "FLOAT16"),
    "a shared rank": (_shared_rank, "lora.1.o_proj.A.*lora.1.o_proj.r"),
    "another input": (_other_input, "lora.0.up_proj.*module.s x"),
    "another module": (_other_module, "lora.0.up_proj.*gate_proj"),
    "a slot without effect": (_unused, "lora.0.up_proj.*apart"),
}


@pytest.mark.parametrize("fault", SLOTS)
def test_a_wrong_slot_is_seen(fault: str, copy: Path, int4_graph: Any) -> None:
    spoil, said = SLOTS[fault]
    check_slots(copy, int4_graph.slots)
    with pytest.raises(GraphError, match=said):
        check_slots(spoilt(copy, spoil), int4_graph.slots)


def test_a_module_without_a_slot_is_seen(int4_graph: Any, copy: Path) -> None:
    def spoil(graph: ir.Graph) -> None:
        graph.append(ir.node("MatMul", [graph.inputs[0], graph.inputs[0]], name="/model/layers.2/mlp/up_proj/MatMul"))

    with pytest.raises(GraphError, match="one for each of 11 modules"):
        check_slots(spoilt(copy, spoil), int4_graph.slots)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora.0.o_proj.A": None}, "lora.0.o_proj.A"),
        ({"lora.9.o_proj.A": np.zeros((2, 64), np.float32)}, "lora.9.o_proj.A"),
        ({"lora.0.o_proj.A": np.zeros((3, 64), np.float32)}, r"lora.0.o_proj.B.*\[64, 2\].*\[64, 3\]"),
        ({"lora.0.o_proj.A": np.zeros((2, 63), np.float32)}, r"lora.0.o_proj.A.*\[2, 63\]"),
        ({"lora.0.o_proj.A": np.zeros((64, 2), np.float32)}, r"lora.0.o_proj.A.*\[64, 2\]"),
        ({"lora.0.o_proj.A": np.zeros((2, 64), np.float16)}, "lora.0.o_proj.A"),
    ],
)
def test_a_wrong_adapter_file_is_seen(change: dict[str, Any], said: str, int4_graph: Any, tmp_path: Path) -> None:
    tensors: dict[str, Any] = {}
    for slot in int4_graph.slots.slots:
        tensors[slot.a] = np.zeros((2, slot.inputs), np.float32)
        tensors[slot.b] = np.zeros((slot.outputs, 2), np.float32)

    def write(values: dict[str, Any]) -> Path:
        file = onnxruntime.AdapterFormat()
        file.set_parameters(
            {
                name: onnxruntime.OrtValue.ortvalue_from_numpy(value)
                for name, value in values.items()
                if value is not None
            }
        )
        file.export_adapter(str(tmp_path / "a.onnx_adapter"))
        return tmp_path / "a.onnx_adapter"

    check_adapter(write(tensors), int4_graph.slots)
    with pytest.raises(GraphError, match=said):
        check_adapter(write(tensors | change), int4_graph.slots)
