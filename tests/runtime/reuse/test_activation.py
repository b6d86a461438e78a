"""Where an activated adapter begins: the last occurrence of its invocation."""

from __future__ import annotations

import pytest

from dualtune_edge.runtime.reuse.activation import base_part


@pytest.mark.parametrize(
    ("prompt", "invocation", "expected"),
    [
        ((), (1,), 0),
        ((1,), (1,), 0),
        ((1,), (1, 2), 1),
        ((0, 1, 2), (1, 2), 1),
        ((1, 2, 0, 1, 2, 0), (1, 2), 3),
        ((1, 2, 0, 1), (1, 2), 0),
        ((1, 1, 1, 1), (1, 1), 2),  # occurrences that overlap
        ((1, 2, 3), (4,), 3),
    ],
)
def test_the_last_occurrence_counts(prompt: tuple[int, ...], invocation: tuple[int, ...], expected: int) -> None:
    assert base_part(prompt, invocation) == expected
    assert base_part(list(prompt), invocation) == expected
