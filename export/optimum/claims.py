"""Claims about the parts of a graph that read no weight: shapes, masks, angles. They are run, and compared.

An exporter writes them as dozens of nodes that change with every release. Their outcome depends only on how many
tokens there are, so it is computed by onnxruntime for several numbers of tokens, instead of being recognized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.export.optimum.alone import INPUTS, Dim, leaf, open_alone
from dualtune_edge.export.optimum.cursor import FIX, Cursor
from dualtune_edge.toolkit.errors import GraphError

Check: TypeAlias = Callable[["Probe", NDArray[np.generic]], bool]

_GRAPHS: Final = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class Probe:
    """Sizes of one forward."""

    batch: int
    past: int
    new: int

    def size(self, dims: Iterable[Dim]) -> list[int]:
        """Dimensions as numbers."""
        known: Mapping[str, int] = {"B": self.batch, "S": self.new, "P": self.past, "T": self.past + self.new}
        return [known[dim] if isinstance(dim, str) else dim for dim in dims]

    @property
    def positions(self) -> NDArray[np.int64]:
        """Of the new tokens, [batch, new]."""
        row = np.arange(self.past, self.past + self.new, dtype=np.int64)
        return np.repeat(row[np.newaxis], self.batch, axis=0)


@dataclass
class Claims:
    """Claims about one graph, gathered while it is read and checked at the end.

    `shapes` are those of the values that depend on weights: they follow from the operators that were read.
    """

    cursor: Cursor
    shapes: dict[ir.Value, tuple[Dim, ...]] = field(default_factory=dict)
    checks: list[tuple[ir.Value, str, Check]] = field(default_factory=list)

    def shape(self, value: ir.Value | None, *dims: Dim) -> None:
        """Note the shape of a value, and of what casts make of it."""
        plain = self.cursor.plain(value)
        while value is not None and plain is not None:
            self.shapes[value] = dims
            if value is plain:
                break
            node = value.producer()
            value = node.inputs[0] if node else None

    def reshapes(self, operand: ir.Value | None, *dims: Dim) -> None:
        """Claim that a Reshape's operand stands for these dimensions; one of them may be left to it."""
        self.check(operand, f"a shape of {list(dims)}", lambda probe, sizes: _is_shape(sizes, probe.size(dims)))

    def check(self, value: ir.Value | None, expected: str, holds: Check) -> None:
        """Claim that `holds` is true of a value, for every probe."""
        if value is None:
            raise self.cursor.refusal(value, expected)
        self.checks.append((value, expected, holds))

    def verify(self, probes: Iterable[Probe]) -> None:
        """Run the values that are claimed about, and compare.

        Raises:
            GraphError: names the first node whose value breaks a claim.

        """
        values = list(dict.fromkeys(value for value, _, _ in self.checks))
        for probe, outputs in self.run(values, probes):
            for value, expected, holds in self.checks:
                if not holds(probe, outputs[value]):
                    raise self.cursor.refusal(value, f"{expected} of {probe}")

    def run(
        self, values: list[ir.Value], probes: Iterable[Probe]
    ) -> Iterable[tuple[Probe, dict[ir.Value, NDArray[np.generic]]]]:
        """The values for each probe."""
        nodes, leaves = self._needed(values)
        try:
            session = open_alone(nodes, leaves, values, self.cursor.graph.opset_imports)
        except Exception as error:  # noqa: BLE001 - onnxruntime's own classes have no public root
            raise self._unrunnable(error) from None
        names = {argument.name for argument in session.get_inputs()}
        for probe in probes:
            feeds = _feeds(probe) | {
                leaf(value): np.array(probe.size(dims), np.int64) for value, dims in leaves.items()
            }
            try:
                outputs = session.run(None, {name: feed for name, feed in feeds.items() if name in names})
            except Exception as error:  # noqa: BLE001
                raise self._unrunnable(error) from None
            yield probe, dict(zip(values, outputs, strict=True))

    def _needed(self, values: list[ir.Value]) -> tuple[list[ir.Node], dict[ir.Value, tuple[Dim, ...]]]:
        """(nodes that make these values, shapes that they ask for); the nodes count as seen."""
        nodes: set[ir.Node] = set()
        leaves: dict[ir.Value, tuple[Dim, ...]] = {}
        left = list(values)
        while left:
            value = left.pop()
            node = value.producer()
            if node is None:
                self._refuse_weight(value)
                continue
            if node in nodes:
                continue
            nodes.add(node)
            if len(node.outputs) != 1 or any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
                raise self.cursor.refusal(value, "an operator of one output, without branches")
            source = node.inputs[0] if node.inputs else None
            if node.op_type == "Shape" and not node.attributes and source is not None and source in self.shapes:
                leaves[source] = self.shapes[source]
                continue
            left += [operand for operand in node.inputs if operand is not None]
        self.cursor.seen |= nodes
        return [node for node in self.cursor.graph if node in nodes], leaves

    def _unrunnable(self, error: Exception) -> GraphError:
        reason = str(error).splitlines()[0]
        return GraphError(
            str(self.cursor.path), found=reason, expected="shapes, masks and angles that can be run", fix=FIX
        )

    def _refuse_weight(self, value: ir.Value) -> None:
        small = value.const_value is not None and value.const_value.size <= 4096
        if not small and value.name not in INPUTS:
            raise self.cursor.refusal(value, "a value that depends on no weight")


def only_number(tensor: NDArray[np.generic]) -> int | None:
    """The number of a tensor that holds one; None: it holds another count."""
    return int(tensor.reshape(-1)[0]) if tensor.size == 1 else None


def _is_shape(tensor: NDArray[np.generic], expected: list[int]) -> bool:
    sizes = [int(size) for size in tensor.reshape(-1)]
    return (
        len(sizes) == len(expected)
        and sizes.count(-1) <= 1
        and all(size in (-1, wanted) for size, wanted in zip(sizes, expected, strict=True))
    )


def _feeds(probe: Probe) -> dict[str, NDArray[np.int64]]:
    return {
        "input_ids": np.zeros((probe.batch, probe.new), np.int64),
        "attention_mask": np.ones((probe.batch, probe.past + probe.new), np.int64),
        "position_ids": probe.positions,
    }
