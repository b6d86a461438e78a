from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.qnn.calibration import _starts


@given(st.integers(1, 300), st.integers(1, 80))
def test_chunks_are_all_of_a_prompt_and_nothing_beyond_it(length: int, tokens: int) -> None:
    starts = _starts(length, tokens)
    assert {start + index for start in starts for index in range(tokens)} == set(range(max(length, tokens)))
    assert all(end - start <= tokens for start, end in pairwise(starts))  # the KV cache has no gap
