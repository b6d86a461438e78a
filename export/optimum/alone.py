"""Some nodes of a graph as a model of their own, which onnxruntime runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import onnx_ir as ir
import onnxruntime

Dim: TypeAlias = int | str  # "B": batch, "S": new tokens, "P": past tokens, "T": both
INPUTS: Final = ("input_ids", "attention_mask", "position_ids")  # int64 [batch, tokens]
_INTEGERS: Final = ir.TensorType(ir.DataType.INT64)


def leaf(value: ir.Value) -> str:
    """The input that stands for a value's shape."""
    return f"shape of {value.name}"


def open_alone(
    nodes: Iterable[ir.Node],
    leaves: Mapping[ir.Value, tuple[Dim, ...]],
    values: Sequence[ir.Value],
    opset_imports: Mapping[str, int],
) -> onnxruntime.InferenceSession:
    """A session that makes `values` by `nodes`.

    Args:
        nodes: in their order, without those that make the leaves.
        leaves: values of which the nodes ask only the shape, which becomes an input (see `leaf`).
        values: the outputs.
        opset_imports: those of the whole graph.

    """
    made: dict[ir.Value, ir.Value] = {}
    inputs = {name: ir.Value(name=name, type=_INTEGERS, shape=ir.Shape([None, None])) for name in INPUTS}
    inputs |= {leaf(value): _input(leaf(value), len(dims)) for value, dims in leaves.items()}
    initializers: list[ir.Value] = []

    def copy(value: ir.Value | None) -> ir.Value | None:
        if value is None or value in made:
            return None if value is None else made[value]
        if value.name in inputs:
            return inputs[value.name]
        made[value] = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        initializers.append(made[value])
        return made[value]

    copies = []
    for node in nodes:
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Shape" and source in leaves:
            new = ir.node("Identity", [inputs[leaf(source)]], name=node.name)
        else:
            new = ir.node(node.op_type, [copy(value) for value in node.inputs], node.attributes, name=node.name)
        new.outputs[0].name = node.outputs[0].name
        made[node.outputs[0]] = new.outputs[0]
        copies.append(new)
    outputs = [copy(value) for value in values]
    graph = ir.Graph(
        list(inputs.values()),
        outputs,
        nodes=copies,
        initializers=initializers,
        opset_imports=dict(opset_imports),
        name="alone",
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _input(name: str, size: int) -> ir.Value:
    return ir.Value(name=name, type=_INTEGERS, shape=ir.Shape([size]))
