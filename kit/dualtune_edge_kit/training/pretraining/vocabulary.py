"""A larger vocabulary for a trained base: merges go on where the tokenizer's end, until frequent words are one token.

The new tokens' embeddings begin as the means of the two tokens that they are merged from.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from dualtune_edge_kit.training.data import everyday, kin, toolsets
from dualtune_edge_kit.training.data.typed import conversations, requests

_LEAST: Final = 2  # times that a pair must stand in the words
_LETTERS: Final = re.compile(r"[A-Za-z]+")
_SLOT: Final = re.compile(r"\{\w+\}")
Pair: TypeAlias = tuple[str, str]


def words() -> Counter[str]:
    """The words of training's wordings and of all tools, and how often they stand."""
    counts: Counter[str] = Counter()
    for text in _texts():
        counts.update(_LETTERS.findall(_SLOT.sub(" ", text)))
    return counts


def extended(tokenizer: Tokenizer, counts: Counter[str], size: int) -> Tokenizer:
    """The tokenizer with further merges, up to ``size`` tokens or until no pair is frequent."""
    read: dict[str, Any] = json.loads(tokenizer.to_str())
    model = read["model"]
    pieces = {word: tokenizer.encode(word).tokens for word in counts}
    while len(model["vocab"]) < size:
        pairs: Counter[Pair] = Counter()
        for word, count in counts.items():
            for pair in zip(pieces[word], pieces[word][1:], strict=False):
                pairs[pair] += count
        best = max(pairs, key=lambda pair: (pairs[pair], pair), default=None)
        if best is None or pairs[best] < _LEAST:
            break
        model["merges"].append(list(best))
        model["vocab"].setdefault("".join(best), len(model["vocab"]))
        pieces = {word: _merged(tokens, best) if best[0] in tokens else tokens for word, tokens in pieces.items()}
    return Tokenizer.from_str(json.dumps(read))


def with_words(model: Qwen2ForCausalLM, before: Tokenizer, after: Tokenizer) -> Qwen2ForCausalLM:
    """The model with embeddings for the tokens that ``after`` has beside those of ``before``."""
    old, vocabulary = before.get_vocab_size(), after.get_vocab()
    model.resize_token_embeddings(after.get_vocab_size(), mean_resizing=False)
    weights = model.get_input_embeddings().weight
    with torch.no_grad():
        for left, right in merges(after):
            token = vocabulary[left + right]
            if token >= old:
                weights[token] = (weights[vocabulary[left]] + weights[vocabulary[right]]) / 2
    return model


def merges(tokenizer: Tokenizer) -> list[Pair]:
    """The pairs that become one token, in their order."""
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _merged(tokens: list[str], pair: Pair) -> list[str]:
    """``tokens`` with every occurrence of the pair as one token, from the left."""
    merged: list[str] = []
    for token in tokens:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def _texts() -> Iterator[str]:
    for name in toolsets.NAMES:
        known = toolsets.load(name)
        yield known.toolset.description
        for tool in known.toolset.tools:
            yield from (tool.name, tool.description.partition(". ")[0], *tool.parameters.get("properties", {}))
            yield from (wording.text for wording in known.sentences[tool.name, "train"])
            yield from (wording.text for wording in requests.typed_wordings(name)[tool.name])
    yield from requests.chat("train")
    yield from (said for task in conversations.tasks() for said in task.said)
    for named in kin.table().tools.values():
        yield from (*named.names, *named.said)
    yield from (name for names in kin.table().properties.values() for name in names)
    yield from _everyday()


def _everyday() -> Iterator[str]:
    known = everyday.meanings()
    for meaning in (*known.actions, *known.things, *known.modifiers):
        yield from (*meaning.words, *meaning.said)
