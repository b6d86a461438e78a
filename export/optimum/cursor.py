"""Walking a graph from its outputs to its inputs: each step says what it expects, or refuses by the node's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.toolkit.errors import GraphError

_LAYER: Final = re.compile(r"layers\.(\d+)")
FIX: Final = (
    "Export it again with the pinned optimum-onnx, without --optimize and in fp32, or leave out the graph: "
    "docs/limits.md says which graphs are known."
)


class Cursor:
    """Reads one graph, and remembers which nodes it has accounted for.

    Args:
        path: the graph's file, for errors.
        graph: as onnx-ir has it.

    """

    def __init__(self, path: Path, graph: ir.Graph) -> None:
        self.path, self.graph = path, graph
        self.seen: set[ir.Node] = set()

    def node(self, value: ir.Value | None, *ops: str) -> ir.Node:
        """The node that makes a value, behind casts to float32.

        Raises:
            GraphError: it is none of these operators.

        """
        node = self.producer(value)
        if node is None or node.op_type not in ops or node.domain:
            raise self.refusal(value, " or ".join(ops))
        self.seen.add(node)
        return node

    def producer(self, value: ir.Value | None) -> ir.Node | None:
        """The node that makes a value; None: an input or a weight."""
        stripped = self.plain(value)
        return stripped.producer() if stripped is not None else None

    def plain(self, value: ir.Value | None) -> ir.Value | None:
        """The value behind casts to float32 and identities, which change no float32.

        For values of the hidden path only: there all is float, as the weights are.
        """
        while value is not None and (node := value.producer()) is not None and _does_nothing(node):
            self.seen.add(node)
            value = node.inputs[0]
        return value

    def is_op(self, value: ir.Value | None, op: str) -> bool:
        """Whether a node of this operator makes the value."""
        node = self.producer(value)
        return node is not None and node.op_type == op and not node.domain

    def same(self, value: ir.Value | None, other: ir.Value | None, expected: str) -> None:
        """Raise if two values, casts left out, are not one."""
        if self.plain(value) is not self.plain(other):
            raise self.refusal(value, expected)

    def constant(self, value: ir.Value | None) -> NDArray[np.generic] | None:
        """A small constant's numbers; None: the value is no constant."""
        if value is None:
            return None
        producer = value.producer()
        if producer is not None and producer.op_type == "Constant":
            self.seen.add(producer)
            attribute = producer.attributes.get("value")
            return np.asarray(attribute.as_tensor().numpy()) if attribute else None
        tensor = value.const_value
        return np.asarray(tensor.numpy()) if tensor is not None and tensor.size <= 1 else None

    def number(self, value: ir.Value | None, expected: str) -> float:
        """A constant of one number.

        Raises:
            GraphError: the value is none.

        """
        constant = self.constant(value)
        if constant is None or constant.size != 1:
            raise self.refusal(value, expected)
        return float(constant.reshape(())[()])

    def is_number(self, value: ir.Value | None, number: float) -> bool:
        """Whether a value is this number, rounded to float32."""
        constant = self.constant(value)
        return constant is not None and constant.size == 1 and float(constant.reshape(())[()]) == np.float32(number)

    def operands(self, node: ir.Node, number: float) -> ir.Value | None:
        """The other operand of a commutative node of which one is this number."""
        for index in (0, 1):
            if self.is_number(node.inputs[index], number):
                return node.inputs[1 - index]
        raise self.refusal(node.outputs[0], f"{node.op_type} with {number}")

    def attribute(self, node: ir.Node, name: str, expected: int | Sequence[int]) -> None:
        """Raise if a node has not this attribute."""
        attribute = node.attributes.get(name)
        value = None if attribute is None else attribute.value
        value = list(value) if isinstance(value, Sequence) else value
        if value != (list(expected) if isinstance(expected, Sequence) else expected):
            raise self.refusal(node.outputs[0], f"{node.op_type} with {name} {expected}")

    def refusal(self, value: ir.Value | None, expected: str) -> GraphError:
        """An error that names the node which makes the value, and its layer."""
        stripped = self.plain(value)
        node = stripped.producer() if stripped is not None else None
        if node is not None:
            name = node.name or node.outputs[0].name or ""
            found = f"{node.domain + '.' if node.domain else ''}{node.op_type}"
        else:
            name = (stripped.name if stripped is not None else None) or "an input left out"
            found = "a value that no node makes"
        layer = _LAYER.search(name)
        where = f"{self.path}, {f'layer {layer[1]}, ' if layer else ''}node {name}"
        return GraphError(where, found=found, expected=expected, fix=FIX)


def _does_nothing(node: ir.Node) -> bool:
    to = node.attributes["to"].as_int() if node.op_type == "Cast" else None
    return node.op_type == "Identity" or to == int(ir.DataType.FLOAT)
