from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.qnn.range import Range

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
