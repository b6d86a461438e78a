import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.decode.json_position import Position, position


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", Position("value", "", "")),
        ("{", Position("key", "", "}")),
        ('{"pa', Position("key", '"pa', "}")),
        ('{"path": ', Position("value", "", "}")),
        ('{"path":', Position("value", "", "}")),
        ('{"path": "', Position("string", "", "}")),
        ('{"path": "a {[ b', Position("string", "a {[ b", "}")),
        ('{"path": "a\\"b', Position("string", 'a\\"b', "}")),
        ('{"path": "a"', Position("after", "", "}")),
        ('{"path": "a", ', Position("key", "", "}")),
        ('{"n": 12', Position("value", "12", "}")),
        ('{"list": [', Position("value", "", "]}")),
        ('{"list": ["x", ', Position("value", "", "]}")),
        ('{"list": ["x", "y', Position("string", "y", "]}")),
        ('{"list": ["x"]', Position("after", "", "}")),
        ('{"list": [{"a": "', Position("string", "", "}]}")),
        ('{"list": [{"a": "}"}, ', Position("value", "", "]}")),
        ('{"a": {"b": 1}', Position("after", "", "}")),
        ('{"a": 1}', Position("after", "", "")),
        ("]}}", Position("after", "", "")),
    ],
)
def test_where_a_beginning_ends(written: str, expected: Position) -> None:
    assert position(written) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],:\n', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"{', max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(value=st.dictionaries(st.text('a"{', max_size=2), values, max_size=3), data=st.data())
def test_closing_what_is_open_behind_any_value_gives_json(value: dict[str, object], data: st.DataObject) -> None:
    text = json.dumps(value)
    end = data.draw(st.integers(1, len(text)))
    place = position(text[:end])
    if place.kind == "after":
        json.loads(text[:end] + place.closing)
    elif place.kind == "string":
        assert text[:end].endswith(place.text)
