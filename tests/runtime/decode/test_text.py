from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from dualtune_edge.runtime.decode.text import write_text
from dualtune_edge.toolkit.errors import EngineError

END = 256


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One token a byte, and a token that ends the turn."""
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


class ScriptedEngine:
    """Wants these tokens one after the other."""

    context_length = 40

    def __init__(self, wanted: Sequence[int], height: float = 10.0) -> None:
        self.tokens: tuple[int, ...] = ()
        self._wanted, self._height = iter(wanted), height

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self.tokens += tuple(tokens)
        logits = np.zeros(257, dtype=np.float32)
        logits[next(self._wanted, END)] = self._height
        return logits


def written(text: str, tokenizer: Tokenizer, **settings: object) -> list[str]:
    engine = ScriptedEngine(tokenizer.encode(text).ids)
    options: dict[str, object] = {"end": {END}, "max_tokens": 100} | settings
    return list(write_text(engine, [1, 2], tokenizer, **options))  # type: ignore[arg-type]


def test_text_comes_in_pieces_to_its_end(tokenizer: Tokenizer) -> None:
    assert "".join(written("Two commits.", tokenizer)) == "Two commits."


def test_a_character_of_several_tokens_comes_whole(tokenizer: Tokenizer) -> None:
    assert written("aü日b", tokenizer) == ["a", "ü", "日", "b"]


def test_the_most_tokens_and_the_context_end_it(tokenizer: Tokenizer) -> None:
    assert "".join(written("abcdef", tokenizer, max_tokens=3)) == "abc"
    assert "".join(written("a" * 100, tokenizer)) == "a" * 38  # a context of 40 with a prompt of 2


def test_samples_follow_the_distribution_and_the_seed(tokenizer: Tokenizer) -> None:
    def sample(seed: int) -> str:
        engine = ScriptedEngine([65] * 30, height=3.0)
        pieces = write_text(engine, [1], tokenizer, end={END}, max_tokens=20, temperature=1.0, seed=seed)  # type: ignore[arg-type]
        return "".join(pieces)

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) > 1


def test_logits_that_are_no_numbers_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(EngineError, match="not finite"):
        list(write_text(ScriptedEngine([1], float("nan")), [1], tokenizer, end={END}, max_tokens=2))  # type: ignore[arg-type]
