from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.qnn.integers import Range, quantize_weight

FLOATS = st.floats(-1e4, 1e4, width=32)


@given(FLOATS, FLOATS, st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_range_holds_its_values_to_half_a_step_and_zero_exactly(
    one: float, other: float, shares: list[float]
) -> None:
    grid = Range(min(one, other), max(one, other))
    inside = [grid.low + share * (grid.high - grid.low) for share in shares]
    values = np.array([*inside, 0.0], dtype=np.float32)
    back = grid.quantize(values).astype(np.float64) * grid.scale
    np.testing.assert_allclose(back, values, atol=grid.scale * 0.51, rtol=1e-6)
    assert back[-1] == 0


def test_what_is_outside_a_range_is_clipped() -> None:
    assert Range(-1, 1).quantize(np.array([-9, 9], dtype=np.float32)).tolist() == [-32768, 32767]


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
