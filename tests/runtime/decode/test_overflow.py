"""Results that are too long: what stays, what is left out, and that a huge one costs no more than a long one."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from dualtune_edge.runtime.decode.overflow import shorten


class Counting:
    """A tokenizer of words that counts the characters it is given."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106 - no password
        self._tokenizer.pre_tokenizer = Whitespace()
        self.characters = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> Encoding:
        self.characters += len(text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)


@pytest.fixture
def tokenizer() -> Any:
    return Counting()


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


@pytest.mark.parametrize("text", ["", "w0", words(12), " " * 500])
def test_what_fits_stays_as_it_is(text: str, tokenizer: Any) -> None:
    assert shorten(text, 12, tokenizer) == (text, 0)


def test_two_thirds_of_the_beginning_and_one_of_the_end_stay(tokenizer: Any) -> None:
    text = words(13)
    shortened, left_out = shorten(text, 12, tokenizer)
    beginning, line, end = shortened.split("\n")
    assert (beginning, end) == (words(8), "w9 w10 w11 w12")
    assert line == f"[… {left_out} of {len(text)} characters are left out here …]"
    assert left_out == len(" w8 ")


def test_of_a_huge_text_only_the_ends_are_read(tokenizer: Any) -> None:
    text = words(200_000)
    shortened, left_out = shorten(text, 12, tokenizer)
    assert shortened.startswith(f"{words(8)}\n[…")
    assert shortened.endswith("\nw199996 w199997 w199998 w199999")
    assert len(text) - left_out == len(words(8)) + len("w199996 w199997 w199998 w199999")
    assert tokenizer.characters <= 12 * 64


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_few_tokens_are_few(most: int, tokenizer: Any) -> None:
    shortened, left_out = shorten(words(9), most, tokenizer)
    assert len(shortened.split("\n")[0].split()) == most - most // 3
    assert left_out > 0


def test_one_endless_word_is_cut(tokenizer: Any) -> None:
    text = "x" * 100_000
    shortened, left_out = shorten(text, 12, tokenizer)
    assert len(shortened) < 2_000
    assert left_out == len(text) - shortened.count("x") > 0
