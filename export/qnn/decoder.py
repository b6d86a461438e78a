"""A decoder's forward over a fixed chunk of tokens, written in operators that NPU compilers take.

Keys and values of earlier tokens are inputs, those of the chunk are outputs, in the order of tokens: the host appends
them to one buffer. Query heads that share keys are rows of one product, so keys are never repeated. Attention's factor
1/√d is folded into the weights of the queries, or of their norm where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.export.base.modules import HEAD
from dualtune_edge.export.qnn.emitter import Emitter
from dualtune_edge.export.qnn.range import Range
from dualtune_edge.export.qnn.shape import DecoderShape
from dualtune_edge.export.quantize.integers import IntegerWeight

NORM: Final = "model.norm"
_BEYOND: Final = 16.0  # nats below the least score: a share of e^-16 is less than one of 65,535 steps
UNIT: Final = Range(-1.0, 1.0)  # of cosines and sines
_SHARE: Final = Range(0.0, 1.0)


class Parameters(Protocol):
    """A model's weights, as stored in a static graph."""

    def matrix(self, module: str) -> IntegerWeight | NDArray[np.float32]:
        """A linear module's weight, shape (inputs, outputs)."""

    def vector(self, name: str) -> NDArray[np.float32] | None:
        """A bias or a norm's weight; None: there is none."""

    def table(self) -> NDArray[np.float32]:
        """The embedding, shape (vocabulary, hidden)."""


@dataclass(frozen=True)
class Chunk:
    """The number of tokens of a forward, and the largest number that it attends to, itself included."""

    tokens: int
    kv_length: int

    @property
    def past(self) -> int:
        """The number of places for earlier tokens."""
        return self.kv_length - self.tokens


def decoder(
    shape: DecoderShape, chunk: Chunk, parameters: Parameters, ranges: Mapping[str, Range] | None = None
) -> Emitter:
    """The whole model over a chunk.

    Inputs, all but the last of them activations:
        `hidden` (1, tokens, hidden): the tokens' rows of the embedding.
        `cos`, `sin` (1, tokens, 1, head_dim / 2): of the tokens' positions.
        `mask` (1, 1, tokens, kv_length): 0 where a token is attended to, far below 0 where not; in integers, the
            largest and the smallest.
        `past.<layer>.key`, `past.<layer>.value` (1, past, kv_heads, head_dim)
        `logits_at` (1,): the token after which logits are computed; left out where there is one token.
    Outputs:
        `logits` (1, 1, vocabulary), float32.
        `present.<layer>.key`, `present.<layer>.value` (1, tokens, kv_heads, head_dim): those of the chunk.
    """
    return _Decoder(shape, chunk, parameters, ranges).build()


class _Decoder:
    def __init__(
        self, shape: DecoderShape, chunk: Chunk, parameters: Parameters, ranges: Mapping[str, Range] | None
    ) -> None:
        self.shape, self.chunk, self.parameters, self.ranges = shape, chunk, parameters, ranges
        self.emit = Emitter(ranges)

    def build(self) -> Emitter:
        emit, shape, tokens = self.emit, self.shape, self.chunk.tokens
        hidden = emit.activation("hidden", (1, tokens, shape.hidden), Range.around(self.parameters.table()))
        half = (1, tokens, 1, shape.head_dim // 2)
        rotations = emit.activation("cos", half, UNIT), emit.activation("sin", half, UNIT)
        mask = self._mask()
        for layer in range(shape.layers):
            hidden = self._layer(layer, hidden, mask, rotations)
        if tokens > 1:
            at = emit.input("logits_at", (1,), ir.DataType.INT64)
            hidden = emit.move("Gather", [hidden, at], "last", {"axis": 1})
        logits = self._linear(HEAD, self._norm(NORM, hidden))
        emit.output(logits, "logits", (1, 1, shape.vocabulary), ir.DataType.FLOAT)
        return emit

    def _mask(self) -> ir.Value:
        """The mask, repeated for the heads of a group: the queries of a group are rows of one product."""
        mask = self.emit.activation("mask", (1, 1, self.chunk.tokens, self.chunk.kv_length), Range(-self._depth, 0.0))
        if self.shape.group == 1:
            return mask
        return self.emit.move("Concat", [mask] * self.shape.group, "mask.group", {"axis": 2})

    @property
    def _depth(self) -> float:
        """By how much the mask lowers a score, where scores are integers."""
        if self.ranges is None:
            return 0.0
        scores = [self.ranges[f"model.layers.{layer}.self_attn.scores"] for layer in range(self.shape.layers)]
        return _BEYOND + max(score.high - score.low for score in scores)

    def _layer(self, layer: int, hidden: ir.Value, mask: ir.Value, rotations: tuple[ir.Value, ir.Value]) -> ir.Value:
        emit, name = self.emit, f"model.layers.{layer}"
        attended = self._attention(layer, self._norm(f"{name}.input_layernorm", hidden), mask, rotations)
        hidden = emit.compute("Add", [hidden, attended], f"{name}.attended")
        normed = self._norm(f"{name}.post_attention_layernorm", hidden)
        gate, up = (self._linear(f"{name}.mlp.{part}_proj", normed) for part in ("gate", "up"))
        opened = emit.compute("Sigmoid", [gate], f"{name}.mlp.opened", within=_SHARE)
        gate = emit.compute("Mul", [gate, opened], f"{name}.mlp.silu")
        inner = emit.compute("Mul", [gate, up], f"{name}.mlp.inner")
        return emit.compute("Add", [hidden, self._linear(f"{name}.mlp.down_proj", inner)], f"{name}.hidden")

    def _attention(
        self, layer: int, hidden: ir.Value, mask: ir.Value, rotations: tuple[ir.Value, ir.Value]
    ) -> ir.Value:
        emit, shape, tokens = self.emit, self.shape, self.chunk.tokens
        path, kv, dim = f"model.layers.{layer}.self_attn", shape.kv_heads, shape.head_dim
        queries = self._rotated(f"{path}.q", self._heads(path, "q", hidden, shape.heads), rotations)
        keys = self._rotated(f"{path}.k", self._heads(path, "k", hidden, kv), rotations)
        values = self._heads(path, "v", hidden, kv)
        # (1, tokens, heads, dim) → (1, kv, group · tokens, dim)
        queries = emit.move("Transpose", [queries], f"{path}.q.heads", {"perm": (0, 2, 1, 3)})
        queries = emit.reshape(queries, f"{path}.q.grouped", 1, kv, shape.group * tokens, dim)
        keys = self._behind_past(layer, "key", keys, f"{path}.k.rotated")
        values = self._behind_past(layer, "value", values, f"{path}.v_proj")
        keys = emit.move("Transpose", [keys], f"{path}.k.heads", {"perm": (0, 2, 3, 1)})  # (1, kv, dim, length)
        values = emit.move("Transpose", [values], f"{path}.v.heads", {"perm": (0, 2, 1, 3)})  # (1, kv, length, dim)
        scores = emit.compute("MatMul", [queries, keys], f"{path}.scores")  # (1, kv, group · tokens, length)
        masked = emit.compute("Add", [scores, mask], f"{path}.masked", within=self._masked(f"{path}.scores"))
        shares = emit.compute("Softmax", [masked], f"{path}.shares", within=_SHARE, attributes={"axis": -1})
        mixed = emit.compute("MatMul", [shares, values], f"{path}.mixed")  # (1, kv, group · tokens, dim)
        mixed = emit.reshape(mixed, f"{path}.mixed.heads", 1, shape.heads, tokens, dim)
        mixed = emit.move("Transpose", [mixed], f"{path}.mixed.tokens", {"perm": (0, 2, 1, 3)})
        return self._linear(f"{path}.o_proj", emit.reshape(mixed, f"{path}.mixed.rows", 1, tokens, shape.heads * dim))

    def _masked(self, scores: str) -> Range:
        low, high = (self.ranges[scores].low, self.ranges[scores].high) if self.ranges else (0.0, 0.0)
        return Range(low - self._depth, high)

    def _heads(self, path: str, part: str, hidden: ir.Value, heads: int) -> ir.Value:
        """Queries, keys or values, shape (1, tokens, heads, head_dim)."""
        rows = self._linear(f"{path}.{part}_proj", hidden)
        split = self.emit.reshape(rows, f"{path}.{part}.split", 1, self.chunk.tokens, heads, self.shape.head_dim)
        return self._norm(f"{path}.{part}_norm", split) if self.shape.qk_norm and part != "v" else split

    def _rotated(self, name: str, heads: ir.Value, rotations: tuple[ir.Value, ir.Value]) -> ir.Value:
        """Heads rotated by position; the first half of a head's values is paired with the second."""
        emit, half, (cos, sin) = self.emit, self.shape.head_dim // 2, rotations
        one, other = (self._part(f"{name}.{index}", heads, index * half, (index + 1) * half) for index in (0, 1))

        def times(value: ir.Value, factor: ir.Value, label: str) -> ir.Value:
            return emit.compute("Mul", [value, factor], f"{name}.{label}")

        first = emit.compute("Sub", [times(one, cos, "one.cos"), times(other, sin, "other.sin")], f"{name}.first")
        second = emit.compute("Add", [times(other, cos, "other.cos"), times(one, sin, "one.sin")], f"{name}.second")
        return emit.compute("Concat", [first, second], f"{name}.rotated", attributes={"axis": -1})

    def _part(self, name: str, value: ir.Value, start: int, end: int) -> ir.Value:
        """The values [start, end) of the last axis."""
        bounds = [self.emit.constant(f"index.{index}", np.array([index], dtype=np.int64)) for index in (start, end, -1)]
        return self.emit.move("Slice", [value, *bounds], name)

    def _behind_past(self, layer: int, half: str, new: ir.Value, grid: str) -> ir.Value:
        """The keys or values of the past and of the chunk, joined; the chunk's are an output too."""
        emit, chunk = self.emit, self.chunk
        heads = (self.shape.kv_heads, self.shape.head_dim)
        past = emit.activation(f"past.{layer}.{half}", (1, chunk.past, *heads), grid)
        emit.output(new, f"present.{layer}.{half}", (1, chunk.tokens, *heads), emit.activations)
        return emit.move("Concat", [past, new], f"{half}.{layer}", {"axis": 1})

    def _norm(self, name: str, value: ir.Value) -> ir.Value:
        weight = self.parameters.vector(f"{name}.weight")
        assert weight is not None  # noqa: S101 - every norm of these architectures has one
        attributes = {"axis": -1, "epsilon": self.shape.epsilon}
        operand = self.emit.operand(f"{name}.weight", weight)
        return self.emit.compute("RMSNormalization", [value, operand], name, attributes=attributes)

    def _linear(self, module: str, value: ir.Value) -> ir.Value:
        emit = self.emit
        emit.read[module] = value
        matrix = emit.weight(f"{module}.weight", self.parameters.matrix(module))
        bias = self.parameters.vector(f"{module}.bias")
        if bias is None:
            return emit.compute("MatMul", [value, matrix], module)
        product = emit.compute("MatMul", [value, matrix], f"{module}.product")
        return emit.compute("Add", [product, emit.operand(f"{module}.bias", bias)], module)
