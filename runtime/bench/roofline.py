"""The roofline of a forward: weights read from memory, or integer products computed, whichever takes longer.

The peak of the products is onnxruntime's own: that of the graph's largest product with as many rows as a prompt is read
at once. Attention and the float32 products of an adapter are not counted, so a forward cannot be quicker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime

from dualtune_edge.runtime.bench.machine import bandwidth
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.protobuf import LENGTH, fields, number, varint

_KIND: Final = b"MatMulNBits"
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
class Roofline:
    """What a machine can do for one graph.

    `bandwidth`: bytes a second. `rate`: operations a second. `layers`: operations of a token. `head`: operations of one
    row of logits.
    """

    bandwidth: float
    rate: float
    layers: int = 0
    head: int = 0

    def seconds(self, weights: int, tokens: int, rows: int) -> float:
        """Of a forward of so many tokens that reads `weights` bytes and returns `rows` of logits."""
        return max(weights / self.bandwidth, (tokens * self.layers + rows * self.head) / self.rate)


def measure_roofline(bundle: Bundle, threads: int) -> Roofline:
    """Of a bundle's base graph on this machine. A graph without quantized products is bound by its weights alone."""
    found = list(products((bundle.model.folder / bundle.entry.graph.files[0]).read_bytes()))
    head = sum(product.operations for product in found if product.outputs == bundle.manifest.base.vocab_size)
    layers = [product for product in found if product.outputs != bundle.manifest.base.vocab_size]
    return Roofline(
        bandwidth=bandwidth(threads),
        rate=peak(max(layers, key=lambda product: product.operations), threads) if layers else 1.0,
        layers=sum(product.operations for product in layers),
        head=head if layers else 0,
    )


def products(model: bytes) -> Iterator[Product]:
    """The quantized products of a ModelProto, in the graph's order.

    Raises:
        ValueError: it is not a protobuf message.

    """
    for graph in _all(memoryview(model), _MODEL_GRAPH):
        for node in _all(graph, _GRAPH_NODE):
            if next((bytes(kind) for kind in _all(node, _NODE_TYPE)), b"") == _KIND:
                yield _product(node)


def peak(product: Product, threads: int) -> float:
    """Operations a second that onnxruntime reaches in this product: the best of several runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_model(product), options, providers=["CPUExecutionProvider"])
    rows = {"rows": np.random.default_rng(0).standard_normal((_ROWS, product.inputs), dtype=np.float32)}
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        session.run(None, rows)
        seconds.append(time.perf_counter() - start)
    return _ROWS * product.operations / min(seconds)


def _product(node: memoryview) -> Product:
    values = {}
    for attribute in _all(node, _NODE_ATTRIBUTE):
        name = next((bytes(text) for text in _all(attribute, _ATTRIBUTE_NAME)), b"")
        values[name] = next((number(value) for value in _all(attribute, _ATTRIBUTE_NUMBER)), 0)
    level = values.get(b"accuracy_level", 0)
    return Product(values[b"K"], values[b"N"], values.get(b"bits", 4), values.get(b"block_size", 32), level)


def _all(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for key, value, _ in fields(message) if key == wanted)


def _model(product: Product) -> bytes:
    """A ModelProto of the product alone, with weights of a seed: `rows` (any, inputs) → `products` (any, outputs)."""
    random, blocks = np.random.default_rng(1), -(-product.inputs // product.block)
    size = (product.outputs, blocks, product.block * product.bits // 8)
    weights = random.integers(0, 256, size, dtype=np.uint8)
    scales = np.full(product.outputs * blocks, 0.01, dtype=np.float32)
    attributes = {
        "K": product.inputs,
        "N": product.outputs,
        "bits": product.bits,
        "block_size": product.block,
        "accuracy_level": product.accuracy,
    }
    node = _field(1, b"rows") + _field(1, b"weights") + _field(1, b"scales") + _field(2, b"products")
    node += _field(_NODE_TYPE, _KIND) + _field(7, b"com.microsoft")
    for name, value in attributes.items():
        attribute = _field(_ATTRIBUTE_NAME, name.encode()) + _field(_ATTRIBUTE_NUMBER, value) + _field(20, _INT)
        node += _field(_NODE_ATTRIBUTE, attribute)
    graph = _field(_GRAPH_NODE, node) + _field(2, b"product")
    graph += _field(5, _tensor("weights", _UINT8, size, weights.tobytes()))
    graph += _field(5, _tensor("scales", _FLOAT, scales.shape, scales.tobytes()))
    graph += _field(11, _matrix("rows", product.inputs)) + _field(12, _matrix("products", product.outputs))
    sets = _field(8, _field(1, b"") + _field(2, 21)) + _field(8, _field(1, b"com.microsoft") + _field(2, 1))
    return _field(1, 10) + sets + _field(_MODEL_GRAPH, graph)


def _tensor(name: str, kind: int, shape: tuple[int, ...], values: bytes) -> bytes:
    dimensions = b"".join(_field(1, size) for size in shape)
    return dimensions + _field(2, kind) + _field(8, name.encode()) + _field(9, values)


def _matrix(name: str, columns: int) -> bytes:
    """A ValueInfoProto: float32, any number of rows."""
    shape = _field(1, _field(2, b"any")) + _field(1, _field(1, columns))
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, shape)))


def _field(key: int, value: int | bytes) -> bytes:
    """A field of a message: its number, its wire type, its value."""
    if isinstance(value, int):
        return varint(key << 3) + varint(value)
    return varint(key << 3 | LENGTH) + varint(len(value)) + value
