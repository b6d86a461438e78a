from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.bench.roofline import Product, Roofline, _model, measure_roofline, peak, products
from dualtune_edge.runtime.bundle.opening import open_bundle

COUNTS = st.integers(1, 10_000)


def test_the_products_of_a_bundle_are_its_quantized_weights(exported: Path) -> None:
    bundle = open_bundle(exported)
    found = list(products((bundle.model.folder / "model.onnx").read_bytes()))
    assert {product.bits for product in found} <= {4, 8}
    roofline = measure_roofline(bundle, 1)
    assert roofline.layers + roofline.head == sum(2 * product.inputs * product.outputs for product in found)
    assert roofline.head == 2 * bundle.manifest.base.vocab_size * found[-1].inputs
    assert roofline.rate > 1e7


@pytest.mark.parametrize("product", [Product(64, 96, 4, 32, 4), Product(160, 32, 4, 128, 4), Product(32, 16, 8, 32, 0)])
def test_a_product_is_a_graph_that_computes_it(product: Product) -> None:
    model = _model(product)
    assert list(products(model)) == [product]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    one_hot = np.eye(product.inputs, dtype=np.float32)
    (weights,) = session.run(None, {"rows": one_hot})
    assert weights.shape == (product.inputs, product.outputs)
    assert 0 < np.abs(weights).max() <= 1.01 * 0.01 * 2 ** (product.bits - 1)
    assert peak(product, 1) > 1e6


@given(COUNTS, COUNTS, COUNTS)
def test_a_forward_takes_its_weights_or_its_products(weights: int, tokens: int, rows: int) -> None:
    roofline = Roofline(bandwidth=10.0, rate=7.0, layers=3, head=5)
    assert roofline.seconds(weights, tokens, rows) == max(weights / 10, (3 * tokens + 5 * rows) / 7)
    assert Roofline(bandwidth=10.0, rate=1.0).seconds(weights, tokens, rows) == weights / 10
