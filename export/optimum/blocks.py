"""Norms, linear modules, residuals and the MLP, as PyTorch's tracer writes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from dualtune_edge.export.optimum.claims import Claims, only_number
from dualtune_edge.export.optimum.cursor import Cursor
from dualtune_edge.export.optimum.description import Activation, Linear, Mlp, Norm
from dualtune_edge.export.optimum.weights import WeightBook

_END: Final = 1 << 31  # a slice to the end says a number beyond


@dataclass(frozen=True)
class Sizes:
    """The decoder's sizes by its config."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head: int
    epsilon: float  # of the norms


@dataclass(frozen=True)
class Reading:
    """What the readers of the parts share."""

    cursor: Cursor
    claims: Claims
    weights: WeightBook
    sizes: Sizes


def is_norm(reading: Reading, value: ir.Value | None) -> bool:
    """Whether a value is a norm's output, and not a linear module's."""
    return reading.cursor.is_op(value, "Mul")


def read_norm(reading: Reading, value: ir.Value | None, weight: str) -> tuple[Norm, ir.Value | None]:
    """Read `x / sqrt(mean(x²) + ε) · w`. Returns the norm, and x."""
    cursor = reading.cursor
    factor = cursor.node(value, "Mul")
    scaled, scale = factor.inputs
    if not cursor.is_op(scaled, "Mul"):
        scale, scaled = scaled, scale
    ratio = cursor.node(scaled, "Mul")
    x, inverse = ratio.inputs
    if not (cursor.is_op(inverse, "Div") or cursor.is_op(inverse, "Reciprocal")):
        raise cursor.refusal(scaled, "x · 1 / sqrt(mean(x²) + ε)")
    divide = cursor.node(inverse, "Div", "Reciprocal")
    if divide.op_type == "Div" and not cursor.is_number(divide.inputs[0], 1.0):
        raise cursor.refusal(inverse, "1 / sqrt(mean(x²) + ε)")
    root = cursor.node(divide.inputs[-1], "Sqrt")
    add = cursor.node(root.inputs[0], "Add")
    mean, epsilon = add.inputs
    mean_node = cursor.node(mean, "ReduceMean")
    _check_last_axis(cursor, mean_node)
    square = cursor.node(mean_node.inputs[0], "Pow")
    if not cursor.is_number(square.inputs[1], 2.0):
        raise cursor.refusal(mean_node.inputs[0], "x²")
    cursor.same(square.inputs[0], x, "the square of the value that is normalized")
    offset = reading.weights.scale(scale, weight)
    expected = reading.sizes.epsilon
    if not cursor.is_number(epsilon, expected):
        raise cursor.refusal(add.outputs[0], f"an ε of {expected}, by config.json")
    return Norm(weight, cursor.number(epsilon, "a constant ε"), offset), x


def _check_last_axis(cursor: Cursor, mean: ir.Node) -> None:
    cursor.attribute(mean, "keepdims", 1)
    axes = cursor.constant(mean.inputs[1]) if len(mean.inputs) > 1 else mean.attributes["axes"].value
    if axes is None or [int(axis) for axis in axes] != [-1]:
        raise cursor.refusal(mean.outputs[0], "the mean over the last axis")


def read_linear(reading: Reading, value: ir.Value | None, module: str) -> tuple[Linear, ir.Value | None]:
    """Read `x Wᵀ [+ b]`. Returns the module, and x."""
    cursor, weights = reading.cursor, reading.weights
    bias = f"{module}.bias" if f"{module}.bias" in weights else None
    if bias:
        add = cursor.node(value, "Add")
        value, other = add.inputs
        if not cursor.is_op(value, "MatMul"):
            value, other = other, value
        weights.table(other, bias)
    product = cursor.node(value, "MatMul")
    weights.matrix(product.inputs[1], f"{module}.weight")
    return Linear(f"{module}.weight", bias), product.inputs[0]


def read_mlp(reading: Reading, value: ir.Value | None, path: str) -> tuple[Mlp, ir.Value | None]:
    """Read `down(act(gate(x)) · up(x))`. Returns the MLP, and x."""
    cursor = reading.cursor
    down, gated = read_linear(reading, value, f"{path}.down_proj")
    reading.claims.shape(value, "B", "S", reading.sizes.hidden)
    product = cursor.node(gated, "Mul")
    packed = f"{path}.gate_up_proj.weight" in reading.weights
    activated, up = product.inputs[::-1] if packed else product.inputs
    activation, gate = _read_activation(cursor, activated)
    if not packed:
        gate_module, x = read_linear(reading, gate, f"{path}.gate_proj")
        up_module, other = read_linear(reading, up, f"{path}.up_proj")
        cursor.same(other, x, "gate and up of one value")
        return Mlp((gate_module, up_module), activation, down), x
    width = reading.sizes.intermediate
    source = read_slice(reading, gate, (0, width), width=2 * width, axis=2)
    cursor.same(read_slice(reading, up, (width, 2 * width), width=2 * width, axis=2), source, "two halves of one value")
    module, x = read_linear(reading, source, f"{path}.gate_up_proj")
    reading.claims.shape(source, "B", "S", 2 * width)
    return Mlp((module,), activation, down), x


def _read_activation(cursor: Cursor, value: ir.Value | None) -> tuple[Activation, ir.Value | None]:
    node = cursor.node(value, "Mul")
    first, second = node.inputs
    if cursor.is_op(second, "Sigmoid"):
        cursor.same(cursor.node(second, "Sigmoid").inputs[0], first, "x · sigmoid(x)")
        return "silu", first
    return "gelu_tanh", _read_gelu(cursor, node)


def _read_gelu(cursor: Cursor, half: ir.Node) -> ir.Value | None:
    """`0.5 · (x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))))`."""
    product = cursor.node(cursor.operands(half, 0.5), "Mul")
    x, one_plus = product.inputs
    tanh = cursor.node(cursor.operands(cursor.node(one_plus, "Add"), 1.0), "Tanh")
    inner = cursor.node(cursor.operands(cursor.node(tanh.inputs[0], "Mul"), (2 / 3.141592653589793) ** 0.5), "Add")
    cursor.same(inner.inputs[0], x, "x + 0.044715 · x³")
    cube = cursor.operands(cursor.node(inner.inputs[1], "Mul"), 0.044715)
    if cursor.is_op(cube, "Pow"):
        power = cursor.node(cube, "Pow")
        if not cursor.is_number(power.inputs[1], 3.0):
            raise cursor.refusal(cube, "x³")
        cursor.same(power.inputs[0], x, "x³")
        return x
    times = cursor.node(cube, "Mul")
    cursor.same(times.inputs[0], x, "x · x²")
    square = cursor.node(times.inputs[1], "Mul")
    cursor.same(square.inputs[0], x, "x²")
    cursor.same(square.inputs[1], x, "x²")
    return x


def read_slice(
    reading: Reading, value: ir.Value | None, bounds: tuple[int, int], *, width: int, axis: int
) -> ir.Value | None:
    """Read `x[…, start:end]` along the last axis (number `axis`), of `width` values. Returns x."""
    cursor, claims = reading.cursor, reading.claims
    node = cursor.node(value, "Slice")
    source, start, end, axes, *steps = node.inputs
    axis_numbers = cursor.constant(axes)
    if axis_numbers is None or [int(number) for number in axis_numbers] not in ([axis], [-1]):
        raise cursor.refusal(value, "a slice of the last axis")
    if steps and not cursor.is_number(steps[0], 1):
        raise cursor.refusal(value, "a slice without steps")
    claims.check(start, f"a slice from {bounds[0]}", lambda _, index: only_number(index) == bounds[0])
    to_the_end = bounds[1] == width
    claims.check(
        end,
        f"a slice to {bounds[1]}",
        lambda _, index: only_number(index) == bounds[1] or (to_the_end and (only_number(index) or 0) >= _END),
    )
    return source
