from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dualtune_edge.export.quantize.gptq import moments, round_by
from dualtune_edge.export.quantize.integers import IntegerWeight, quantize_weight

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((96, 24)).astype(np.float32)
ROWS = (RNG.standard_normal((400, 8)) @ RNG.standard_normal((8, 96)) + 0.1 * RNG.standard_normal((400, 96))).astype(
    np.float32
)  # as activations are: a few directions tell most


def floats(found: IntegerWeight) -> NDArray[np.float32]:
    result: NDArray[np.float32] = found.values.astype(np.float32) * np.repeat(found.scales, found.block, 0)
    return result


def error(found: IntegerWeight, rows: NDArray[np.float32]) -> float:
    """Of the products with rows."""
    return float(np.square(rows @ (floats(found) - WEIGHT)).mean())


@pytest.mark.parametrize("block", [16, 32, None])
def test_products_are_nearer_than_by_rounding_each_weight_for_itself(block: int | None) -> None:
    found = round_by(WEIGHT, moments(ROWS), bits=4, block=block)
    nearest = quantize_weight(WEIGHT, bits=4, block=block)
    assert found.scales.shape == nearest.scales.shape
    assert error(found, ROWS) < 0.3 * error(nearest, ROWS)


def test_inputs_that_have_nothing_in_common_are_rounded_to_the_nearest() -> None:
    apart = (np.eye(96, dtype=np.float32),)
    np.testing.assert_array_equal(
        floats(round_by(WEIGHT, apart, bits=4, block=32)), floats(quantize_weight(WEIGHT, bits=4, block=32))
    )


def test_what_was_never_seen_is_rounded_all_the_same() -> None:
    found = round_by(WEIGHT, moments(np.zeros((4, 96), dtype=np.float32)), bits=4, block=32)
    np.testing.assert_array_equal(floats(found), floats(quantize_weight(WEIGHT, bits=4, block=32)))


@pytest.mark.parametrize("block", [32, None])
def test_inputs_beyond_the_reach_do_not_make_up_for_one_another(
    block: int | None,
) -> None:
    seen = moments(ROWS, 64)
    assert [part.shape for part in seen] == [(64, 64), (32, 32)]
    found = round_by(WEIGHT, seen, bits=4, block=block)
    assert error(found, ROWS) < 0.7 * error(quantize_weight(WEIGHT, bits=4, block=block), ROWS)
    if block:
        alone = round_by(WEIGHT[64:], moments(ROWS[:, 64:]), bits=4, block=block)
        np.testing.assert_array_equal(floats(found)[64:], floats(alone))
