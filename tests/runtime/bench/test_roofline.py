from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.bench.roofline import (
    Attention,
    Forward,
    Product,
    Rates,
    Roofline,
    _float_model,
    _quantized_model,
    attention,
    float_peak,
    measure_roofline,
    peak,
    products,
)
from dualtune_edge.runtime.bundle.opening import open_bundle

COUNTS = st.integers(1, 10_000)


def test_the_products_of_a_bundle_are_its_quantized_weights(exported: Path) -> None:
    bundle = open_bundle(exported)
    found = list(products((bundle.model.folder / "model.onnx").read_bytes()))
    assert {product.bits for product in found} <= {4, 8}
    roofline = measure_roofline(bundle, 1)
    assert roofline.layers + roofline.head == sum(2 * product.inputs * product.outputs for product in found)
    assert roofline.head == 2 * bundle.manifest.base.vocab_size * found[-1].inputs
    assert roofline.rates.integer > 1e7


@pytest.mark.parametrize("product", [Product(64, 96, 4, 32, 4), Product(160, 32, 4, 128, 4), Product(32, 16, 8, 32, 0)])
def test_a_product_is_a_graph_that_computes_it(product: Product) -> None:
    model = _quantized_model(product)
    assert list(products(model)) == [product]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    one_hot = np.eye(product.inputs, dtype=np.float32)
    (weights,) = session.run(None, {"rows": one_hot})
    assert weights.shape == (product.inputs, product.outputs)
    assert 0 < np.abs(weights).max() <= 1.01 * 0.01 * 2 ** (product.bits - 1)
    assert peak(product, 1) > 1e6


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_forward_takes_what_it_reads_or_what_it_computes(weights: int, held: int, tokens: int, rows: int) -> None:
    layer = Attention(heads=4, kv_heads=2, head_dim=8, head_bytes=64)
    rates = Rates(bandwidth=10.0, integer=7.0, floats=3.0)
    forward = Forward(weights, held, tokens, rows)
    computed = (3 * tokens + 5 * rows) / 7 + layer.operations(held, tokens) / 3
    read = (weights + layer.bytes_read(held)) / 10
    assert Roofline(rates, 3, 5, (layer,)).seconds(forward) == pytest.approx(max(read, computed))
    assert Roofline(rates).seconds(forward) == weights / 10


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 60) | st.none())
def test_attention_is_counted_token_by_token(held: int, tokens: int, window: int | None) -> None:
    layer = Attention(heads=3, kv_heads=1, head_dim=4, head_bytes=32, window=window)
    seen = [held + number if window is None else min(held + number, window) for number in range(1, tokens + 1)]
    assert layer.operations(held, tokens) == sum(4 * 3 * 4 * count for count in seen)
    assert layer.bytes_read(held) == 32 * (seen[0] - 1)


def test_a_window_is_read_from_the_graph(exported: Path) -> None:
    bundle = open_bundle(exported)
    graph, cache = (bundle.model.folder / "model.onnx").read_bytes(), bundle.model.cache
    proto = onnx.load_from_string(graph)
    node = next(node for node in proto.graph.node if node.op_type == "GroupQueryAttention")
    (size,) = (attribute for attribute in node.attribute if attribute.name == "local_window_size")
    size.i = 17
    windows = [layer.window for layer in attention(proto.SerializeToString(), cache)]
    assert windows == [17, *[None] * (cache.layers - 1)]
    assert len(list(attention(graph, cache))) == cache.layers


def test_the_float_product_is_one() -> None:
    session = onnxruntime.InferenceSession(_float_model(16), providers=["CPUExecutionProvider"])
    (weights,) = session.run(None, {"rows": np.eye(16, dtype=np.float32)})
    assert np.array_equal(weights, np.random.default_rng(1).standard_normal((16, 16), dtype=np.float32))
    assert float_peak(1) > 1e6
