"""Prompts that grow are tokenized as the whole text is, wherever they part, with any tokenizer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer

from dualtune_edge.toolkit.prompts.growing_text import GrowingTexts, shared_length

UNKNOWN = "[UNK]"
QWEN = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "byte level": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "byte level with a space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "metaspace, first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "metaspace, always": pre_tokenizers.Metaspace(prepend_scheme="always"),
    "words": pre_tokenizers.Whitespace(),
    "Bert": pre_tokenizers.BertPreTokenizer(),
    "Qwen": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    ),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]),
    "one piece": None,
}
NORMALIZERS = {
    "none": None,
    "NFKC": normalizers.NFKC(),
    "a space before": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "lowercase, stripped": normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()]),
}
# Control tokens that overlap each other, take the spaces beside them, want a word's border, or are looked for later.
ADDED = (
    AddedToken("<s>", special=True, normalized=False),
    AddedToken("</s>", special=True, normalized=False),
    AddedToken("<s>u", special=False, normalized=False),
    AddedToken("a<s>", special=False, normalized=False),
    AddedToken("b </s><s>aa", special=False, normalized=False),
    AddedToken("<l>", special=True, normalized=False, lstrip=True),
    AddedToken("<r>", special=True, normalized=False, rstrip=True),
    AddedToken("<w>", special=True, normalized=False, single_word=True),
    AddedToken("<N>", special=False, normalized=True),
)
PIECES = (*(token.content for token in ADDED if len(token.content) == 3), "</s>", "<n>", *"<>suabn 1ü\n", "ab", "ﬁ")
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def tokenizer(split: str, normalizer: str, *, words: bool = False) -> Tokenizer:
    """One that merges what the pieces often have side by side; with `words`, one without merges."""
    made = Tokenizer(WordLevel({UNKNOWN: 0, "a": 1, "ab": 2}, unk_token=UNKNOWN) if words else BPE(unk_token=UNKNOWN))
    if SPLITS[split]:
        made.pre_tokenizer = SPLITS[split]
    if NORMALIZERS[normalizer]:
        made.normalizer = NORMALIZERS[normalizer]
    if not words:
        lines = ["".join(pair) for pair in pairwise(PIECES * 3)] + ["ab <s>u aab \n\n ab1", "<s>u</s> b"] * 9
        made.train_from_iterator(lines, BpeTrainer(vocab_size=400, special_tokens=[UNKNOWN], show_progress=False))
    made.add_tokens(list(ADDED))
    return made


MADE = {(split, normalizer): tokenizer(split, normalizer) for split in SPLITS for normalizer in NORMALIZERS}
MADE["words", "none"] = tokenizer("words", "none", words=True)


@settings(max_examples=400)
@given(st.sampled_from(list(MADE)), TEXTS, st.lists(st.tuples(st.integers(0, 60), TEXTS), min_size=1, max_size=6))
def test_a_text_that_goes_on_from_an_earlier_one_has_the_tokens_of_the_whole(
    key: tuple[str, str], first: str, turns: list[tuple[int, str]]
) -> None:
    texts, whole = GrowingTexts(MADE[key]), first
    for keep, more in [(0, first), *turns]:
        whole = whole[:keep] + more
        assert texts.tokens(whole) == tuple(MADE[key].encode(whole, add_special_tokens=False).ids)


@settings(max_examples=100)
@given(st.sampled_from(list(MADE)), st.lists(TEXTS, min_size=2, max_size=5), st.data())
def test_a_conversation_of_several_turns_has_the_tokens_of_the_whole(
    key: tuple[str, str], turns: list[str], data: st.DataObject
) -> None:
    texts, whole = GrowingTexts(MADE[key]), ""
    for turn in turns:
        whole += f"<s>{turn}</s>\n"
        for frame in data.draw(st.permutations(("", "<s>u", "<s>a", "<s>ab"))):  # stages ask in other words
            assert texts.tokens(whole + frame) == tuple(MADE[key].encode(whole + frame, add_special_tokens=False).ids)


def test_what_is_shared_is_not_tokenized_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    texts = GrowingTexts(MADE["Qwen", "none"])
    encode = texts._encode
    monkeypatch.setattr(texts, "_encode", lambda text: (read.append(text), encode(text))[1])
    turns = [f"<s>the next who speaks {word}</s>\n" for word in ("one", "two", "three")]
    for count in (1, 2, 3):
        texts.tokens("".join(turns[:count]) + "<s>the next who speaks ")
    assert ["one" in text for text in read] == [True, False, False]
    assert ["two" in text for text in read] == [False, True, False]


def test_a_tokenizer_without_control_tokens_reads_the_whole() -> None:
    made = Tokenizer(WordLevel({UNKNOWN: 0, "b": 1}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = GrowingTexts(made)
    assert [texts.tokens(text) for text in ("a b", "a b b")] == [(0, 1), (0, 1, 1)]


@given(st.text("ab", max_size=20), st.text("ab", max_size=20))
def test_the_shared_length_is_that_of_the_longest_common_beginning(first: str, second: str) -> None:
    length = shared_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]
    assert shared_length(tuple(first), tuple(second)) == length
