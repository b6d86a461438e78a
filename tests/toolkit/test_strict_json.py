import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.toolkit import limits, strict_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_reads_what_json_writes(value: object) -> None:
    assert strict_json.loads(json.dumps(value)) == value


def test_reads_whole_surrogate_pairs() -> None:
    assert strict_json.loads(r'"\ud83d\ude00"') == "😀"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        ("[NaN]", "NaN"),
        ("-Infinity", "-Infinity"),
        ("[1e999]", "1e999"),
        (r'{"\ud83d": "\ude00"}', r"U\+D83D"),
        ("[1,]", "no JSON from line 1, column"),
        (b'"\xff"', "not UTF-8"),
        (f"{strict_json.LFS_POINTER}v1\noid sha256:{'0' * 64}\nsize 5\n", "a pointer of Git LFS"),
        (f"{strict_json.LFS_POINTER}v1\n".encode(), "a pointer of Git LFS"),
        ("[" * (limits.JSON_DEPTH + 1) + "]" * (limits.JSON_DEPTH + 1), "nested deeper"),
        ("[" * 200_000 + "]" * 200_000, "nested deeper"),
        ("1" * 5_000, "digits"),
        (" " * (limits.JSON_BYTES + 1), "bytes, over the"),
    ],
)
def test_refuses(text: str | bytes, complaint: str) -> None:
    with pytest.raises(strict_json.JsonError, match=complaint):
        strict_json.loads(text)


def test_depth_counts_levels() -> None:
    values: list[object] = [1, [], [[]], {"a": [{}]}]
    assert [strict_json.depth(value) for value in values] == [0, 1, 2, 3]
