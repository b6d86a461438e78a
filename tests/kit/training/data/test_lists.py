# ruff: noqa: S311 - lists drawn by seed, not secrets
"""Lists and what points at their lines: the words name just the line whose value is meant."""

from random import Random

import pytest
from dualtune_edge_kit.training.data import lists
from dualtune_edge_kit.training.data.lists import POINTABLE, Make

_PLACES = {
    "first": 0,
    "1st": 0,
    "number one": 0,
    "number 1": 0,
    "top": 0,
    "uppermost": 0,
    "second": 1,
    "2nd": 1,
    "number two": 1,
    "number 2": 1,
    "third": 2,
    "3rd": 2,
    "number three": 2,
    "number 3": 2,
    "fourth": 3,
    "4th": 3,
    "number four": 3,
    "number 4": 3,
    "second to last": -2,
    "last but one": -2,
    "last": -1,
    "final": -1,
    "bottom": -1,
}


def _place(words: str) -> int:
    """The place that the words name; the longest word that fits is the one that counts."""
    return next((_PLACES[word] for word in sorted(_PLACES, key=len, reverse=True) if word in words), 0)


@pytest.mark.parametrize("make", POINTABLE)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_words_name_the_line_that_is_meant(make: Make, count: int) -> None:
    rng = Random(f"{make.__name__} {count}")
    for _ in range(40):
        shown = lists.listing(rng, make, count)
        words, item = lists.pointed(rng, shown)
        assert item == shown.items[_place(words)], words
        assert item in shown.text


def test_a_list_has_its_values_once_and_in_their_order() -> None:
    rng = Random(0)
    for _ in range(200):
        shown = lists.listing(rng, rng.choice(POINTABLE), 4)
        places = [shown.text.index(item) for item in shown.items]
        assert len(set(shown.items)) == len(shown.items)
        assert places[0] == min(places)


def test_only_a_list_of_one_line_is_pointed_at_without_a_place() -> None:
    rng = Random(1)
    for _ in range(100):
        words, _ = lists.pointed(rng, lists.listing(rng, lists.POINTABLE[0], 3))
        assert any(place in words for place in _PLACES), words
