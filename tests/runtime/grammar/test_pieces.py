import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.grammar.pieces import borders, conversation, holds
from dualtune_edge.toolkit.bundle.manifest import Border
from dualtune_edge.toolkit.prompts.messages import Message, call, user


def test_the_conversation_is_what_everybody_says_and_the_values_of_calls() -> None:
    earlier = call("edit", {"path": "a", "edits": [{"old": "b", "count": 3}], "flag": True})
    messages = [
        Message(role="system", content="in /srv"),
        user("edit it"),
        earlier,
        Message(role="tool", content="done"),
        Message(role="assistant", content="It is done"),
        user("edit it"),
        user(""),
    ]
    assert conversation(messages) == ("in /srv", "edit it", "a", "b", "done", "It is done")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0]),
        ("ab", [0, 2]),
        ("a b", [0, 1, 2, 3]),
        ("/a_1.é", [0, 1, 4, 5, 6]),
        ("cafe\u0301!", [0, 5, 6]),
        ("日本", [0, 1, 2]),
        ("x" * 300, [0, 128, 256, 300]),
    ],
)
def test_borders_of_words(text: str, expected: list[int]) -> None:
    assert borders(text, "words") == expected
    assert borders(text, "characters") == list(range(len(text) + 1))


@given(st.text(max_size=50))
def test_words_are_the_whole_text(text: str) -> None:
    places = borders(text, "words")
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0, len(text))


@pytest.mark.parametrize(
    ("value", "border", "expected"),
    [
        ("note", "words", True),  # the second time it stands there
        ("not", "words", False),
        ("not", "characters", True),
        ("", "characters", False),
        ("other", "words", False),
        (".*", "words", True),
    ],
)
def test_a_text_holds_a_piece_wherever_it_stands(value: str, border: Border, *, expected: bool) -> None:
    assert holds("notes, note .*", value, border) == expected
