"""Slots stand beside their modules, empty by default, and leave the base as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.toolkit.errors import GraphError


def test_every_module_has_a_place_and_packed_ones_share_a_slot(int4_graph: Any) -> None:
    slots = int4_graph.slots.slots
    assert [slot.name for slot in slots[:5]] == [
        f"lora.0.{module}" for module in ("qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ]
    packed = slots[0]
    assert (packed.inputs, packed.outputs) == (64, 128)  # 4 + 2 + 2 heads of 16
    assert [(part.module.rsplit(".")[-1], part.start, part.width) for part in packed.parts] == [
        ("q_proj", 0, 64),
        ("k_proj", 64, 32),
        ("v_proj", 96, 32),
    ]
    assert len(int4_graph.slots.modules) == 2 * 7


def test_ranks_are_symbols_of_their_own(int4_graph: Any) -> None:
    graph = ir.load(int4_graph.folder / "model.onnx").graph
    shapes = {value.name: value.shape for value in graph.inputs if value.name.startswith("lora.")}
    assert {str(shapes[slot.a][0]) for slot in int4_graph.slots.slots} == {slot.rank for slot in int4_graph.slots.slots}
    assert {str(shapes[slot.b][1]) for slot in int4_graph.slots.slots} == {slot.rank for slot in int4_graph.slots.slots}


@pytest.mark.parametrize("name", ["float_graph", "int4_graph"])
def test_without_an_adapter_the_logits_are_the_bases_bit_for_bit(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    graph = request.getfixturevalue(name)
    plain = Path(shutil.copytree(graph.folder, tmp_path / "plain"))
    model = ir.load(plain / "model.onnx")
    for node in list(model.graph):  # take the slots out again
        if node.name.startswith("/lora/") and node.op_type == "Add":
            node.outputs[0].replace_all_uses_with(node.inputs[0])
    ir.save(model, plain / "model.onnx")
    np.testing.assert_array_equal(type(graph)(graph.checkpoint, plain, graph.slots).logits(), graph.logits())


def test_weights_are_not_written_again(int4_graph: Any) -> None:
    graph = ir.load(int4_graph.folder / "model.onnx").graph
    own = [value for value in graph.initializers.values() if not isinstance(value.const_value, ir.ExternalTensor)]
    slots = {name for slot in int4_graph.slots.slots for name in (slot.a, slot.b)}
    assert {value.name for value in own} == {*slots, "logits_at", "logits_rows.last"}
    assert sorted(path.name for path in int4_graph.folder.glob("model*")) == ["model.onnx", "model.onnx.data"]


def test_slots_are_not_added_twice(int4_graph: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(int4_graph.folder, tmp_path / "copy"))
    before = (copy / "model.onnx").read_bytes()
    with pytest.raises(GraphError, match="slots already"):
        add_slots(copy)
    assert (copy / "model.onnx").read_bytes() == before
