"""Attention as PyTorch's tracer writes it: projections, rotation, cache, mask, softmax."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.export.optimum.blocks import Reading, is_norm, read_linear, read_norm, read_slice
from dualtune_edge.export.optimum.claims import Claims, Probe
from dualtune_edge.export.optimum.cursor import Cursor
from dualtune_edge.export.optimum.description import Attention, Linear, Norm


@dataclass(frozen=True)
class Heads:
    """The values of q, k or v: where they come from, by which norm, and by which tables they are rotated."""

    source: ir.Value | None  # [B, S, heads · head]
    norm: Norm | None
    tables: tuple[ir.Value, ir.Value] | None


@dataclass
class UnprovenValues:
    """Masks and rotary tables, one a layer, from the last to the first: `windows` and `run_tables` prove them."""

    masks: list[ir.Value] = field(default_factory=list)
    tables: list[tuple[ir.Value, ir.Value] | None] = field(default_factory=list)  # cosines and sines


def read_attention(
    reading: Reading, value: ir.Value | None, layer: int, rotated: int, unproven: UnprovenValues
) -> tuple[Attention, ir.Value | None]:
    """Read one layer's attention, but for its window and tables. Returns it, and x.

    Args:
        reading: the graph.
        value: what the output projection makes.
        layer: its number.
        rotated: the number of values of a head that are rotated.
        unproven: gets the layer's mask and tables.

    """
    cursor, sizes = reading.cursor, reading.sizes
    path = f"model.layers.{layer}.self_attn"
    out, joined = read_linear(reading, value, f"{path}.o_proj")
    mixed = _read_joined(reading, joined)
    weighted = cursor.node(mixed, "MatMul")
    scores, mask = _read_softmax(cursor, weighted.inputs[0])
    q, k, scale = _read_scores(cursor, scores)
    k_heads = _read_cached(reading, k, layer, "key")
    v_heads = _read_cached(reading, weighted.inputs[1], layer, "value")
    unproven.masks.append(mask)
    parts = (
        _read_heads(reading, q, f"{path}.q_norm", sizes.heads, rotated),
        _read_heads(reading, k_heads, f"{path}.k_norm", sizes.kv_heads, rotated),
        _read_heads(reading, v_heads, f"{path}.v_norm", sizes.kv_heads, 0),
    )
    unproven.tables.append(_tables(cursor, q, parts))
    modules, x = _read_projections(reading, parts, path)
    norms = (parts[0].norm, parts[1].norm)
    if (norms[0] is None) != (norms[1] is None) or parts[2].norm:
        raise cursor.refusal(q, "norms of both q and k, or of none, and none of v")
    both = (norms[0], norms[1]) if norms[0] and norms[1] else None
    return Attention(modules, both, None, scale, None, out), x


def _read_joined(reading: Reading, value: ir.Value | None) -> ir.Value | None:
    """[B, heads, S, head] → [B, S, heads · head]."""
    cursor, sizes = reading.cursor, reading.sizes
    reshape = cursor.node(value, "Reshape")
    reading.claims.reshapes(reshape.inputs[1], "B", "S", sizes.heads * sizes.head)
    transpose = cursor.node(reshape.inputs[0], "Transpose")
    cursor.attribute(transpose, "perm", (0, 2, 1, 3))
    return transpose.inputs[0]


def _read_softmax(cursor: Cursor, value: ir.Value | None) -> tuple[ir.Value | None, ir.Value]:
    """`softmax(scores + mask)`, of which NaN may be made 0. Returns scores and mask."""
    if cursor.is_op(value, "Where"):
        where = cursor.node(value, "Where")
        is_nan = cursor.node(where.inputs[0], "IsNaN")
        cursor.same(is_nan.inputs[0], where.inputs[2], "NaN of the softmax made 0")
        if not cursor.is_number(where.inputs[1], 0.0):
            raise cursor.refusal(value, "NaN of the softmax made 0")
        value = where.inputs[2]
    softmax = cursor.node(value, "Softmax")
    cursor.attribute(softmax, "axis", -1)
    add = cursor.node(softmax.inputs[0], "Add")
    scores, mask = add.inputs
    if mask is None:
        raise cursor.refusal(softmax.inputs[0], "scores plus a mask")
    return scores, mask


def _read_scores(cursor: Cursor, value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None, float]:
    """`(q · a) (kᵀ · b) · c`. Returns q [B, heads, S, head], k [B, heads, T, head] and a · b · c."""
    scale = 1.0
    if cursor.is_op(value, "Mul") or cursor.is_op(value, "Div"):
        value, scale = _scaled(cursor, value, scale)
    product = cursor.node(value, "MatMul")
    q, transposed = product.inputs
    q, scale = _scaled(cursor, q, scale)
    transposed, scale = _scaled(cursor, transposed, scale)
    transpose = cursor.node(transposed, "Transpose")
    cursor.attribute(transpose, "perm", (0, 1, 3, 2))
    return q, transpose.inputs[0], scale


def _scaled(cursor: Cursor, value: ir.Value | None, scale: float) -> tuple[ir.Value | None, float]:
    """Take a constant factor off, where there is one."""
    node = cursor.producer(value)
    if node is None or node.op_type not in {"Mul", "Div"} or cursor.constant(node.inputs[1]) is None:
        return value, scale
    cursor.seen.add(node)
    number = cursor.number(node.inputs[1], "a constant factor")
    return node.inputs[0], scale * number if node.op_type == "Mul" else scale / number


def _read_cached(reading: Reading, value: ir.Value | None, layer: int, which: str) -> ir.Value | None:
    """The cache with the new heads, each repeated for its queries. Returns the new ones [B, kv heads, S, head]."""
    cursor, claims, sizes = reading.cursor, reading.claims, reading.sizes
    groups = sizes.heads // sizes.kv_heads
    if groups > 1:
        reshape = cursor.node(value, "Reshape")
        claims.reshapes(reshape.inputs[1], "B", sizes.heads, "T", sizes.head)
        claims.shape(value, "B", sizes.heads, "T", sizes.head)
        expand = cursor.node(reshape.inputs[0], "Expand")
        claims.reshapes(expand.inputs[1], "B", sizes.kv_heads, groups, "T", sizes.head)
        unsqueeze = cursor.node(expand.inputs[0], "Unsqueeze")
        if not cursor.is_number(unsqueeze.inputs[1], 2):
            raise cursor.refusal(expand.inputs[0], "heads repeated behind themselves")
        value = unsqueeze.inputs[0]
    present = cursor.node(value, "Concat")
    if present.attributes["axis"].as_int() not in {-2, 2} or len(present.inputs) != 2:
        raise cursor.refusal(value, "past and new along the tokens")
    past, new = present.inputs
    names = (f"past_key_values.{layer}.{which}", f"present.{layer}.{which}")
    if past is None or not past.is_graph_input() or (past.name, present.outputs[0].name) != names:
        raise cursor.refusal(value, f"{names[1]}, made of {names[0]}")
    claims.shape(past, "B", sizes.kv_heads, "P", sizes.head)
    claims.shape(value, "B", sizes.kv_heads, "T", sizes.head)
    return new


def _read_heads(reading: Reading, value: ir.Value | None, norm: str, heads: int, rotated: int) -> Heads:
    """Rotation, norm before or after the transposition, and the heads split."""
    cursor, claims, sizes = reading.cursor, reading.claims, reading.sizes
    tables = None
    if rotated and (cursor.is_op(value, "Add") or cursor.is_op(value, "Concat")):
        value, tables = _read_rotation(reading, value, heads, rotated)
    claims.shape(value, "B", heads, "S", sizes.head)
    head_norm = None
    if is_norm(reading, value):
        head_norm, value = read_norm(reading, value, f"{norm}.weight")
        claims.shape(value, "B", heads, "S", sizes.head)
    transpose = cursor.node(value, "Transpose")
    cursor.attribute(transpose, "perm", (0, 2, 1, 3))
    value = transpose.inputs[0]
    if head_norm is None and is_norm(reading, value):
        claims.shape(value, "B", "S", heads, sizes.head)
        head_norm, value = read_norm(reading, value, f"{norm}.weight")
    reshape = cursor.node(value, "Reshape")
    claims.reshapes(reshape.inputs[1], "B", "S", heads, sizes.head)
    claims.shape(value, "B", "S", heads, sizes.head)
    return Heads(reshape.inputs[0], head_norm, tables)


def _read_rotation(
    reading: Reading, value: ir.Value | None, heads: int, rotated: int
) -> tuple[ir.Value | None, tuple[ir.Value, ir.Value]]:
    """`x cos + (−x₂, x₁) sin` of the first `rotated` values of a head; the rest is x. Returns x, cos, sin."""
    cursor, claims, sizes = reading.cursor, reading.claims, reading.sizes
    whole = None
    part = value
    if cursor.is_op(value, "Concat"):  # the values that are not rotated, which may be none
        concat = cursor.node(value, "Concat")
        cursor.attribute(concat, "axis", -1)
        part, rest = concat.inputs
        whole = read_slice(reading, rest, (rotated, sizes.head), width=sizes.head, axis=3)
    add = cursor.node(part, "Add")
    straight, crossed = (cursor.node(product, "Mul") for product in add.inputs)
    x = straight.inputs[0]
    claims.shape(x, "B", heads, "S", rotated)
    halves = cursor.node(crossed.inputs[0], "Concat")
    cursor.attribute(halves, "axis", -1)
    negative = cursor.node(halves.inputs[0], "Neg")
    upper = read_slice(reading, negative.inputs[0], (rotated // 2, rotated), width=rotated, axis=3)
    lower = read_slice(reading, halves.inputs[1], (0, rotated // 2), width=rotated, axis=3)
    cursor.same(upper, x, "two halves of the rotated value")
    cursor.same(lower, x, "two halves of the rotated value")
    if whole is not None:
        cursor.same(read_slice(reading, x, (0, rotated), width=sizes.head, axis=3), whole, "the rest of the same heads")
        x = whole
    cos, sin = (_read_table(cursor, node.inputs[1]) for node in (straight, crossed))
    return x, (cos, sin)


def _read_table(cursor: Cursor, value: ir.Value | None) -> ir.Value:
    """[B, S, rotated] → [B, 1, S, rotated]."""
    unsqueeze = cursor.node(value, "Unsqueeze")
    table = unsqueeze.inputs[0]
    if table is None or not cursor.is_number(unsqueeze.inputs[1], 1):
        raise cursor.refusal(value, "cosines or sines for every head")
    return table


def _tables(cursor: Cursor, q: ir.Value | None, parts: tuple[Heads, Heads, Heads]) -> tuple[ir.Value, ir.Value] | None:
    if parts[0].tables != parts[1].tables:
        raise cursor.refusal(q, "q and k rotated alike")
    return parts[0].tables


def _read_projections(
    reading: Reading, parts: tuple[Heads, Heads, Heads], path: str
) -> tuple[tuple[Linear, ...], ir.Value | None]:
    cursor, sizes = reading.cursor, reading.sizes
    if f"{path}.qkv_proj.weight" not in reading.weights:
        names = ("q_proj", "k_proj", "v_proj")
        linears = [read_linear(reading, part.source, f"{path}.{name}") for part, name in zip(parts, names, strict=True)]
        for _, x in linears[1:]:
            cursor.same(x, linears[0][1], "q, k and v of one value")
        return tuple(module for module, _ in linears), linears[0][1]
    q, kv = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    bounds = ((0, q), (q, q + kv), (q + kv, q + 2 * kv))
    sources = [
        read_slice(reading, part.source, bound, width=q + 2 * kv, axis=2)
        for part, bound in zip(parts, bounds, strict=True)
    ]
    for source in sources[1:]:
        cursor.same(source, sources[0], "q, k and v of one value")
    module, x = read_linear(reading, sources[0], f"{path}.qkv_proj")
    return (module,), x


def windows(
    claims: Claims, unproven: UnprovenValues, candidates: tuple[int | None, ...], probes: tuple[Probe, ...]
) -> list[int | None]:
    """The candidate that each layer's mask is, in the order of `unproven`.

    Raises:
        GraphError: it is none of them.

    """
    left = [list(candidates) for _ in unproven.masks]
    for probe, values in claims.run(list(dict.fromkeys(unproven.masks)), probes):
        for possible, mask in zip(left, unproven.masks, strict=True):
            possible[:] = [window for window in possible if _is_mask(probe, values[mask], window)]
    for possible, mask in zip(left, unproven.masks, strict=True):
        if not possible:
            seen = " or ".join("all before it" if window is None else f"{window} tokens" for window in candidates)
            raise claims.cursor.refusal(mask, f"a mask by which a token sees {seen}")
    return [possible[0] for possible in left]


def _is_mask(probe: Probe, mask: NDArray[np.generic], window: int | None) -> bool:
    """0 where a token sees another, very negative elsewhere."""
    rows, columns = probe.positions[0][:, np.newaxis], np.arange(probe.past + probe.new)[np.newaxis]
    sees = columns <= rows
    if window is not None:
        sees &= columns > rows - window
    values = np.broadcast_to(mask.astype(np.float32), (probe.batch, 1, *sees.shape))
    return bool(np.where(sees, values == 0, values < -1e30).all())
