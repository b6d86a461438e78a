"""The constraint's view of a tokenizer that is open already is what llguidance reads from the file."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from dualtune_edge_kit import FOLDER
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from dualtune_edge.runtime.grammar.grammar import open_tokenizer
from dualtune_edge.runtime.grammar.shared_tokenizer import share_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "n": {"type": "integer"}, "k": {"enum": ["aa", "ü c"]}},
    "required": ["path", "n", "k"],
    "additionalProperties": False,
}


def byte_level() -> Tokenizer:
    """With control tokens, and an added token that is none."""
    made = Tokenizer(BPE())
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator([json.dumps(SCHEMA), "the path /etc/hosts, ü"] * 5, trainer)
    made.add_special_tokens([AddedToken("<|end|>", special=True), AddedToken("</s>", special=True)])
    made.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("[TOOL]"), AddedToken("<a b>")])
    return made


TOKENIZERS = {"made": byte_level(), "kit": Tokenizer.from_file(str(FOLDER / "base" / "tokenizer.json"))}
WIDTH = 76 + max(tokenizer.get_vocab_size() for tokenizer in TOKENIZERS.values())  # logits, some of no token


def pair(name: str) -> tuple[LLTokenizer, LLTokenizer]:
    """(as llguidance reads it, as it is shared)."""
    tokenizer = TOKENIZERS[name]
    shared = share_tokenizer(tokenizer, vocab_size=WIDTH, end_of_turn=[2])
    assert shared
    return open_tokenizer(tokenizer.to_str(), vocab_size=WIDTH, end_of_turn=[2]), shared


PAIRS = {name: pair(name) for name in TOKENIZERS}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_token_is_the_same(name: str) -> None:
    read, shared = PAIRS[name]
    assert shared.vocab_size == TOKENIZERS[name].get_vocab_size()
    assert (read.eos_tokens, read.is_canonical) == (shared.eos_tokens, shared.is_canonical)
    for number in range(shared.vocab_size):
        assert read.decode_bytes([number]) == shared.decode_bytes([number])
        assert read.is_special_token(number) == shared.is_special_token(number)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_constraints_allow_and_force_the_same(name: str) -> None:
    random = Random(name)  # noqa: S311 - no secret
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(SCHEMA))
    for _ in range(20):
        read, shared = (LLMatcher(tokenizer, grammar) for tokenizer in PAIRS[name])
        for _ in range(30):
            masks = [np.unpackbits(np.frombuffer(one.compute_bitmask(), np.uint8)) for one in (read, shared)]
            assert np.array_equal(masks[0][: masks[1].size], masks[1])
            assert not masks[0][masks[1].size :].any()
            forced = read.compute_ff_tokens()
            assert forced == shared.compute_ff_tokens()
            allowed = np.flatnonzero(np.unpackbits(np.frombuffer(read.compute_bitmask(), np.uint8), bitorder="little"))
            if not allowed.size:
                break
            token = forced[0] if forced else int(random.choice(allowed))
            assert read.consume_token(token) == shared.consume_token(token)


@given(st.sampled_from(list(PAIRS)), st.text('ab {}":\n/.x1ü<|end|>', max_size=20))
def test_texts_have_the_same_tokens(name: str, text: str) -> None:
    read, shared = PAIRS[name]
    assert read.tokenize_str(text) == shared.tokenize_str(text)
    cut = text.encode()[:-1]  # may end within a character
    assert read.tokenize_bytes(cut) == shared.tokenize_bytes(cut)


def test_what_is_not_plainly_byte_level_is_read_by_llguidance() -> None:
    spaced, prepended, merged, accented = (byte_level() for _ in range(4))
    spaced.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    prepended.normalizer = normalizers.Prepend("▁")
    merged.add_tokens([AddedToken("two words", normalized=False)])
    accented.add_tokens([AddedToken("é!", normalized=False)])
    for tokenizer in (spaced, prepended, merged, accented):
        assert share_tokenizer(tokenizer, vocab_size=WIDTH, end_of_turn=[2]) is None
    assert share_tokenizer(byte_level(), vocab_size=10, end_of_turn=[2]) is None
    whole = open_tokenizer(merged.to_str(), vocab_size=WIDTH, end_of_turn=[2], shared=merged)
    assert whole.decode_bytes([merged.token_to_id("two words")]) == b"two words"


def test_the_tokenizer_stays_usable(tmp_path: Path) -> None:
    tokenizer = byte_level()
    before = tokenizer.encode("the path").ids
    shared = share_tokenizer(tokenizer, vocab_size=WIDTH, end_of_turn=[2])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("the path").ids == before
    del tokenizer
    assert shared
    assert shared.tokenize_str("the path") == before
