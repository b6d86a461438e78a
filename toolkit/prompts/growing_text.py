"""Tokens of prompts that grow: what a text shares with one before is not tokenized again.

A text is cut only before an added token that the tokenizer takes out of the raw text: there it begins again, so that no
piece on either side depends on the other. Normalizers, pre-tokenizers and the model see such pieces one by one
(tokenizers, src/tokenizer/added_vocabulary.rs and pre_tokenizer.rs). Without such a token the whole text is tokenized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tokenizers import Encoding, Tokenizer

_KEPT: Final = 4  # texts: of a call's stages, and one more


@dataclass(frozen=True)
class _Read:
    """A text with its tokens, and where it can be cut: (its characters, its tokens) before each place."""

    text: str
    ids: tuple[int, ...]
    cuts: tuple[tuple[int, int], ...]


class GrowingTexts:
    """Tokenizes texts, the latest of which are kept."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer  # of `load_tokenizer`: it neither cuts nor pads, and draws nothing by lot
        added = tokenizer.get_added_tokens_decoder()
        self._borders = {
            number: token.content
            for number, token in added.items()
            if not (token.normalized or token.single_word or token.lstrip or token.rstrip)
            and not tokenizer.encode_special_tokens
        }
        self._longest = max((len(token.content) for token in added.values()), default=0)
        self._kept: list[_Read] = []  # the latest last

    def tokens(self, text: str) -> tuple[int, ...]:
        """The text's tokens, without any that the tokenizer would add around it."""
        known, (at, count) = self._known(text)
        encoding = self._encode(text[at:])
        ids = (*known.ids[:count], *encoding.ids) if known else tuple(encoding.ids)
        before = tuple(cut for cut in known.cuts if cut[0] < at) if known else ()
        read = _Read(text, ids, (*before, *self._cuts(text, encoding, at, count)))
        self._kept = [*self._kept[1 - _KEPT :], read]
        return ids

    def _known(self, text: str) -> tuple[_Read | None, tuple[int, int]]:
        """The kept text that can be cut the furthest for this one, and where."""
        best: tuple[_Read | None, tuple[int, int]] = None, (0, 0)
        for read in self._kept:
            # An added token that begins at a cut or before it ends in what the texts share: both have the same ones.
            last = shared_length(read.text, text) - self._longest
            cut = next((cut for cut in reversed(read.cuts) if cut[0] <= last), (0, 0))
            if cut[0] > best[1][0]:
                best = read, cut
        return best

    def _cuts(self, text: str, encoding: Encoding, at: int, count: int) -> Iterator[tuple[int, int]]:
        """Where the text can be cut, from character `at` and token `count` on; the encoding is of the rest."""
        offsets = encoding.offsets
        for index, number in enumerate(encoding.ids):
            if number in self._borders:
                start, end = (at + offset for offset in offsets[index])
                if start and text[start:end] == self._borders[number]:
                    yield start, count + index

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)


def shared_length(first: str | tuple[object, ...], second: str | tuple[object, ...]) -> int:
    """Characters or items in common at the beginning."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
