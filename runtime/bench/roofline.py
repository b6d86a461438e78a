"""The roofline of a forward: what it reads from memory, or what it computes, whichever takes longer.

Read are weights, keys and values; computed are quantized products and attention in float32. The rates of both are
onnxruntime's own: of the graph's largest product with as many rows as a prompt is read at once, and of a float32 one.
Softmax, norms and the float32 products of an adapter are not counted, so a forward cannot be quicker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.runtime.bench.machine import bandwidth
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.protobuf import LENGTH, fields, number, varint
from dualtune_edge.toolkit.bundle.kv_states import CacheShape

_QUANTIZED, _ATTENTION, _FLOATS = b"MatMulNBits", b"GroupQueryAttention", b"MatMul"  # kinds of nodes
_WIDTH: Final = 1024  # of the float32 product
_NO_WINDOW: Final = (1 << 64) - 1  # -1, as protobuf writes it
_ROWS: Final = 128
_RUNS: Final = 9
# Numbers of fields, and values, in onnx/onnx.proto3.
_MODEL_GRAPH, _GRAPH_NODE, _NODE_TYPE, _NODE_ATTRIBUTE = 7, 1, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_NUMBER = 1, 3
_FLOAT, _UINT8, _INT = 1, 2, 2


@dataclass(frozen=True)
class Product:
    """A product of rows with quantized weights."""

    inputs: int
    outputs: int
    bits: int
    block: int
    accuracy: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of one row."""
        return 2 * self.inputs * self.outputs


@dataclass(frozen=True)
class Attention:
    """Attention of one layer. `head_bytes`: of a token's key and value in one head. `window`: None sees every token."""

    heads: int
    kv_heads: int
    head_dim: int
    head_bytes: int
    window: int | None = None

    def operations(self, held: int, tokens: int) -> int:
        """Multiplications and additions: each of so many tokens, behind `held` others, by all that it sees, twice."""
        before = held if self.window is None else min(held, self.window)
        room = tokens if self.window is None else min(tokens, self.window - before)  # of them see one more each
        seen = room * before + room * (room + 1) // 2 + (tokens - room) * (before + room)
        return 4 * self.heads * self.head_dim * seen

    def bytes_read(self, held: int) -> int:
        """Keys and values of the tokens held that the next one sees."""
        seen = held if self.window is None else min(held, self.window - 1)
        return self.kv_heads * self.head_bytes * seen


@dataclass(frozen=True)
class Rates:
    """What a machine can do in a second: bytes read, operations of quantized products, and of float32 ones."""

    bandwidth: float
    integer: float
    floats: float


@dataclass(frozen=True)
class Forward:
    """What is asked of a graph: `tokens` behind `held` others, by `weights` bytes, and so many `rows` of logits."""

    weights: int
    held: int
    tokens: int
    rows: int


@dataclass(frozen=True)
class Roofline:
    """A machine's rates, and a graph's work. `layers`: operations of a token's products. `head`: of a row of logits."""

    rates: Rates
    layers: int = 0
    head: int = 0
    attention: tuple[Attention, ...] = ()

    def seconds(self, forward: Forward) -> float:
        """Of one forward."""
        read = forward.weights + sum(layer.bytes_read(forward.held) for layer in self.attention)
        integer = forward.tokens * self.layers + forward.rows * self.head
        floats = sum(layer.operations(forward.held, forward.tokens) for layer in self.attention)
        return max(read / self.rates.bandwidth, integer / self.rates.integer + floats / self.rates.floats)


def measure_roofline(bundle: Bundle, threads: int) -> Roofline:
    """Of a bundle's base graph on this machine. A graph without quantized products is bound by what it reads alone."""
    graph = (bundle.model.folder / bundle.entry.graph.files[0]).read_bytes()
    found = list(products(graph))
    head = sum(product.operations for product in found if product.outputs == bundle.manifest.base.vocab_size)
    layers = [product for product in found if product.outputs != bundle.manifest.base.vocab_size]
    largest = max(layers, key=lambda product: product.operations, default=None)
    return Roofline(
        rates=Rates(bandwidth(threads), peak(largest, threads) if largest else 1.0, float_peak(threads)),
        layers=sum(product.operations for product in layers),
        head=head if layers else 0,
        attention=tuple(attention(graph, bundle.model.cache)),
    )


def products(model: bytes) -> Iterator[Product]:
    """The quantized products of a ModelProto, in the graph's order.

    Raises:
        ValueError: it is not a protobuf message.

    """
    for values in _attributes(model, _QUANTIZED):
        level = values.get("accuracy_level", 0)
        yield Product(values["K"], values["N"], values.get("bits", 4), values.get("block_size", 32), level)


def attention(model: bytes, cache: CacheShape) -> Iterator[Attention]:
    """The attention of each layer of a ModelProto, in the graph's order.

    Raises:
        ValueError: it is not a protobuf message.

    """
    head_bytes = cache.token_bytes // (cache.layers * cache.heads)
    for values in _attributes(model, _ATTENTION):
        window = values.get("local_window_size", _NO_WINDOW)
        seen = None if window == _NO_WINDOW else window
        yield Attention(values["num_heads"], values["kv_num_heads"], cache.head_dim, head_bytes, seen)


def peak(product: Product, threads: int) -> float:
    """Operations a second that onnxruntime reaches in this product: the best of several runs."""
    return _ROWS * product.operations / _shortest(_quantized_model(product), product.inputs, threads)


def float_peak(threads: int) -> float:
    """Operations a second that onnxruntime reaches in a product of float32 matrices: the best of several runs."""
    return 2 * _ROWS * _WIDTH**2 / _shortest(_float_model(_WIDTH), _WIDTH, threads)


def _shortest(model: bytes, inputs: int, threads: int) -> float:
    """Seconds of the quickest of several runs of a graph, with `_ROWS` rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = {"rows": np.random.default_rng(0).standard_normal((_ROWS, inputs), dtype=np.float32)}
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        session.run(None, rows)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _attributes(model: bytes, kind: bytes) -> Iterator[dict[str, int]]:
    """The numbers among the attributes of each node of a kind, in the graph's order."""
    for graph in _all(memoryview(model), _MODEL_GRAPH):
        for node in _all(graph, _GRAPH_NODE):
            if next((bytes(text) for text in _all(node, _NODE_TYPE)), b"") == kind:
                yield dict(_number(attribute) for attribute in _all(node, _NODE_ATTRIBUTE))


def _number(attribute: memoryview) -> tuple[str, int]:
    """Its name, and its number: 0 where it holds something else."""
    name = next((bytes(text) for text in _all(attribute, _ATTRIBUTE_NAME)), b"")
    return name.decode(), next((number(value) for value in _all(attribute, _ATTRIBUTE_NUMBER)), 0)


def _all(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for key, value, _ in fields(message) if key == wanted)


def _quantized_model(product: Product) -> bytes:
    """A ModelProto of the product alone, with weights of a seed: `rows` (any, inputs) → `products` (any, outputs)."""
    random, blocks = np.random.default_rng(1), -(-product.inputs // product.block)
    size = (product.outputs, blocks, product.block * product.bits // 8)
    weights = _tensor("weights", _UINT8, random.integers(0, 256, size, dtype=np.uint8))
    scales = _tensor("scales", _FLOAT, np.full(product.outputs * blocks, 0.01, dtype=np.float32))
    attributes = {
        "K": product.inputs,
        "N": product.outputs,
        "bits": product.bits,
        "block_size": product.block,
        "accuracy_level": product.accuracy,
    }
    node = _field(1, b"rows") + _field(1, b"weights") + _field(1, b"scales") + _field(2, b"products")
    node += _field(_NODE_TYPE, _QUANTIZED) + _field(7, b"com.microsoft")
    for name, value in attributes.items():
        attribute = _field(_ATTRIBUTE_NAME, name.encode()) + _field(_ATTRIBUTE_NUMBER, value) + _field(20, _INT)
        node += _field(_NODE_ATTRIBUTE, attribute)
    return _model(node, [weights, scales], product.inputs, product.outputs)


def _float_model(width: int) -> bytes:
    """A ModelProto of a product with a square float32 matrix of a seed: `rows` and `products` are (any, width)."""
    weights = np.random.default_rng(1).standard_normal((width, width), dtype=np.float32)
    node = _field(1, b"rows") + _field(1, b"weights") + _field(2, b"products") + _field(_NODE_TYPE, _FLOATS)
    return _model(node, [_tensor("weights", _FLOAT, weights)], width, width)


def _model(node: bytes, weights: Sequence[bytes], inputs: int, outputs: int) -> bytes:
    """A ModelProto of one node from `rows` to `products`."""
    graph = _field(_GRAPH_NODE, node) + _field(2, b"product") + b"".join(_field(5, tensor) for tensor in weights)
    graph += _field(11, _matrix("rows", inputs)) + _field(12, _matrix("products", outputs))
    sets = _field(8, _field(1, b"") + _field(2, 21)) + _field(8, _field(1, b"com.microsoft") + _field(2, 1))
    return _field(1, 10) + sets + _field(_MODEL_GRAPH, graph)


def _tensor(name: str, kind: int, values: NDArray[np.uint8] | NDArray[np.float32]) -> bytes:
    dimensions = b"".join(_field(1, size) for size in values.shape)
    return dimensions + _field(2, kind) + _field(8, name.encode()) + _field(9, values.tobytes())


def _matrix(name: str, columns: int) -> bytes:
    """A ValueInfoProto: float32, any number of rows."""
    shape = _field(1, _field(2, b"any")) + _field(1, _field(1, columns))
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, shape)))


def _field(key: int, value: int | bytes) -> bytes:
    """A field of a message: its number, its wire type, its value."""
    if isinstance(value, int):
        return varint(key << 3) + varint(value)
    return varint(key << 3 | LENGTH) + varint(len(value)) + value
