"""Writes a static graph operator by operator: in float32, or with every activation in 16-bit integers (QDQ).

Both forms come from one description, so the QDQ form computes what was calibrated in float32. In QDQ form the result of
an operator goes through QuantizeLinear and DequantizeLinear on its calibrated range. An operator that only moves values
keeps their range. Weights are integers in both forms, or in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.export.qnn.range import Range
from dualtune_edge.export.quantize.integers import IntegerWeight

OPSET: Final = 23  # the first that has RMSNormalization
_IR_VERSION: Final = 10
_Attributes: TypeAlias = Mapping[str, int | float | Sequence[int]]
_NONE: Final[_Attributes] = MappingProxyType({})


class Emitter:
    """A graph that is being written.

    Args:
        ranges: the calibrated ranges of the activations, by name; None: all is float32.

    """

    def __init__(self, ranges: Mapping[str, Range] | None) -> None:
        self._ranges = ranges
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._constants: dict[str, ir.Value] = {}
        self._grids: dict[ir.Value, Range] = {}  # dequantized value → its range
        self._integers: dict[ir.Value, ir.Value] = {}  # dequantized value → the integers that it is made of
        self.observed: dict[str, ir.Value] = {}  # name of a range → the values in it; in float32 only
        self.read: dict[str, ir.Value] = {}  # linear module → its input

    @property
    def activations(self) -> ir.DataType:
        """The type of activations where they enter and leave the graph."""
        return ir.DataType.FLOAT if self._ranges is None else ir.DataType.INT16

    def input(self, name: str, shape: Sequence[int], kind: ir.DataType) -> ir.Value:
        """A graph input that is not an activation."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind))
        self._inputs.append(value)
        return value

    def activation(self, name: str, shape: Sequence[int], of: str | Range) -> ir.Value:
        """An activation that is a graph input; `of` is its range, or the name of one."""
        value = self.input(name, shape, self.activations)
        return self._dequantized(value, self._range(of)) if self._ranges is not None else value

    def output(self, value: ir.Value, name: str, shape: Sequence[int], kind: ir.DataType) -> None:
        """Make a value a graph output: in float32, or the integers of an activation."""
        result = self._integers[value] if kind == ir.DataType.INT16 else value
        result.name, result.shape, result.type = name, ir.Shape(shape), ir.TensorType(kind)
        self._outputs.append(result)

    def constant(self, name: str, array: NDArray[np.generic], kind: ir.DataType | None = None) -> ir.Value:
        """An initializer; a second call with its name returns it."""
        if name not in self._constants:
            tensor = ir.Tensor(array, dtype=kind, name=name)
            shape, stored = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
            self._constants[name] = ir.Value(name=name, shape=shape, type=stored, const_value=tensor)
        return self._constants[name]

    def operand(self, name: str, array: NDArray[np.float32]) -> ir.Value:
        """A constant that an operator computes with, in 16 bits on its own range."""
        if self._ranges is None:
            return self.constant(name, array)
        grid = Range.around(array)
        return self._dequantized(self.constant(name, grid.quantize(array)), grid)

    def weight(self, name: str, weight: IntegerWeight | NDArray[np.float32]) -> ir.Value:
        """A matrix (inputs, outputs), dequantized where it is in integers."""
        if not isinstance(weight, IntegerWeight):
            return self.constant(name, weight)
        kind = ir.DataType.INT8 if weight.values.dtype == np.int8 else ir.DataType.INT4
        scales, axes = weight.scales, {"axis": 0, "block_size": weight.block}
        if scales.shape[0] == 1:
            scales, axes = scales[0], {"axis": 1}
        inputs = [
            self.constant(name, weight.values, kind),
            self.constant(f"{name}.scale", scales),
            self.constant(f"{name}.zero", np.zeros(scales.shape, dtype=weight.values.dtype), kind),
        ]
        return self.raw("DequantizeLinear", inputs, f"{name}.float", axes)

    def compute(
        self,
        kind: str,
        inputs: Sequence[ir.Value],
        name: str,
        *,
        within: Range | None = None,
        attributes: _Attributes = _NONE,
    ) -> ir.Value:
        """The result of an operator, on the range `within` or on the one calibrated as `name`."""
        result = self.raw(kind, inputs, name, attributes)
        if self._ranges is not None:
            return self._quantized(result, within or self._range(name))
        if within is None:
            self.observed[name] = result
        return result

    def move(self, kind: str, inputs: Sequence[ir.Value], name: str, attributes: _Attributes = _NONE) -> ir.Value:
        """The result of an operator that only moves values, on the range of the first input."""
        result = self.raw(kind, inputs, name, attributes)
        return result if self._ranges is None else self._quantized(result, self._grids[inputs[0]])

    def raw(self, kind: str, inputs: Sequence[ir.Value], name: str, attributes: _Attributes = _NONE) -> ir.Value:
        """The result of an operator, not quantized."""
        node = ir.node(kind, inputs, attributes=attributes, name=f"/{name}")
        node.outputs[0].name = name
        self._nodes.append(node)
        return node.outputs[0]

    def reshape(self, value: ir.Value, name: str, *sizes: int) -> ir.Value:
        """The value in another shape."""
        sizes_of = self.constant(f"shape.{'x'.join(map(str, sizes))}", np.array(sizes, dtype=np.int64))
        return self.move("Reshape", [value, sizes_of], name)

    def model(self, name: str) -> ir.Model:
        """The graph of all that was written."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._constants.values()),
            opset_imports={"": OPSET},
            name=name,
        )
        return ir.Model(graph, ir_version=_IR_VERSION, producer_name="dualtune-edge")

    def _range(self, of: str | Range) -> Range:
        assert self._ranges is not None  # noqa: S101 - only graphs of integers ask
        return of if isinstance(of, Range) else self._ranges[of]

    def _quantized(self, value: ir.Value, grid: Range) -> ir.Value:
        integers = self.raw("QuantizeLinear", [value, *self._grid(value, grid)], f"{value.name}.integer")
        return self._dequantized(integers, grid)

    def _dequantized(self, integers: ir.Value, grid: Range) -> ir.Value:
        result = self.raw("DequantizeLinear", [integers, *self._grid(integers, grid)], f"{integers.name}.float")
        self._grids[result], self._integers[result] = grid, integers
        return result

    def _grid(self, value: ir.Value, grid: Range) -> tuple[ir.Value, ir.Value]:
        name = f"{value.name}.grid"
        scale = self.constant(f"{name}.scale", np.array(grid.scale, dtype=np.float32))
        return scale, self.constant(f"{name}.zero", np.zeros((), dtype=np.int16))
