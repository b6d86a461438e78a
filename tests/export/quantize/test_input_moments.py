from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualtune_edge.export.quantize.input_moments import InputMoments, write_moments


def test_moments_are_read_by_any_module_that_reads_the_input_and_in_their_order(tmp_path: Path) -> None:
    many = tuple(np.full((2, 2), place, dtype=np.float32) for place in range(11))  # "10" sorts before "2" as text
    one = (np.ones((3, 3), dtype=np.float32),)
    write_moments({("a.q", "a.k"): many, ("a.o",): one}, tmp_path / "file")
    held = InputMoments(tmp_path / "file")
    for modules in ({"a.q"}, {"a.k"}, {"a.k", "a.v"}):
        assert [second[0, 0] for second in held.of(modules)] == list(range(11))
    np.testing.assert_array_equal(held.of({"a.o"})[0], one[0])
    with pytest.raises(KeyError, match=r"a\.down, a\.up"):
        held.of({"a.up", "a.down"})
