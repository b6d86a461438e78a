from __future__ import annotations

import numpy as np
import pytest

from dualtune_edge.export.quantize.integers import best_scales, quantize_weight


@pytest.mark.parametrize(("bits", "block", "blocks"), [(4, 16, 4), (4, None, 1), (8, None, 1)])
def test_a_weight_is_near_its_integers(bits: int, block: int | None, blocks: int) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 24)).astype(np.float32)
    weight[:, 3] = 0
    found = quantize_weight(weight, bits=bits, block=block)
    assert found.scales.shape == (blocks, 24)
    assert found.block == 64 // blocks
    assert (found.scales > 0).all()
    back = found.values.astype(np.float32) * np.repeat(found.scales, found.block, 0)
    error = np.sqrt(np.mean((back - weight) ** 2) / np.mean(weight**2))
    assert error < (0.13 if bits == 4 else 0.01)
    assert not back[:, 3].any()


def test_smaller_blocks_are_nearer() -> None:
    weight = np.random.default_rng(0).standard_normal((128, 24)).astype(np.float32)

    def error(block: int) -> float:
        found = quantize_weight(weight, bits=4, block=block)
        return float(np.square(found.values.astype(np.float32) * np.repeat(found.scales, block, 0) - weight).mean())

    assert error(16) < error(32) < error(128)


def test_a_weight_on_the_grid_is_exact() -> None:
    weight = np.random.default_rng(0).integers(-8, 8, (32, 8)).astype(np.float32)
    weight[0] = -8
    found = quantize_weight(weight, bits=4, block=32)
    np.testing.assert_array_equal(found.values.astype(np.float32) * found.scales, weight)


@pytest.mark.parametrize("largest", [1.6, -1.6])
def test_with_a_sign_of_its_own_a_scale_stores_the_largest_weight_as_the_lowest_integer(largest: float) -> None:
    weight = np.linspace(-0.5, 0.5, 32, dtype=np.float32)[:, np.newaxis]
    weight[5] = largest
    scales = best_scales(weight[np.newaxis], 4, signed=True)
    assert (scales[0, 0] < 0) == (largest > 0)
    assert np.rint(weight[5] / scales[0]) == -8
