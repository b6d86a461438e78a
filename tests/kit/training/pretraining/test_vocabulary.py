"""A larger vocabulary: frequent words become one token, the rest stays as it was."""

from collections import Counter

import pytest
import torch
from dualtune_edge_kit.training.pretraining import base, vocabulary
from dualtune_edge_kit.training.pretraining.tokenizer import VOCABULARY, train
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

SENTENCES = ["list the folder", "list the branches", "unstage the folder"] * 20
COUNTS = Counter({"unstage": 5, "folders": 3, "branches": 4, "lighthouse": 4, "once": 1})


@pytest.fixture(scope="module")
def before() -> Tokenizer:
    return train(SENTENCES)


@pytest.fixture(scope="module")
def after(before: Tokenizer) -> Tokenizer:
    return vocabulary.extended(before, COUNTS, VOCABULARY)


def test_words_become_one_token_each(before: Tokenizer, after: Tokenizer) -> None:
    for word in ("unstage", "folders", "branches"):
        assert after.encode(word).tokens == [word]
    assert after.encode("once").tokens == before.encode("once").tokens
    assert before.get_vocab_size() < after.get_vocab_size()


def test_every_earlier_token_keeps_its_number(before: Tokenizer, after: Tokenizer) -> None:
    assert before.get_vocab().items() <= after.get_vocab().items()


@pytest.mark.parametrize(
    "text", ["", "folders/unstage_2.txt", "ünstage the\nFolders\t", "<|im_start|>unstage<|im_end|>"]
)
def test_texts_come_back(after: Tokenizer, text: str) -> None:
    assert after.decode(after.encode(text).ids, skip_special_tokens=False) == text


def test_a_size_is_kept(before: Tokenizer) -> None:
    size = before.get_vocab_size() + 2
    assert vocabulary.extended(before, COUNTS, size).get_vocab_size() == size


@pytest.mark.parametrize("counts", [Counter(), Counter({"e": 9}), Counter({"unstage": 9}), Counter({"unstage": 1})])
def test_merging_ends_where_no_pair_is_frequent(before: Tokenizer, counts: Counter[str]) -> None:
    after = vocabulary.extended(before, counts, VOCABULARY)
    assert after.get_vocab_size() < VOCABULARY
    frequent = [word for word, count in counts.items() if count > 1]
    assert [len(after.encode(word).ids) for word in frequent] == [1 for _ in frequent]


def test_what_has_no_new_token_is_computed_as_before(before: Tokenizer, after: Tokenizer) -> None:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(base.configuration(before)).eval()
    ids = torch.tensor([before.encode("list the folder").ids])
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
    old = model.get_input_embeddings().weight.detach().clone()
    larger = vocabulary.with_words(model, before, after)
    with torch.inference_mode():
        logits = larger(input_ids=ids).logits
    count = before.get_vocab_size()
    assert torch.allclose(logits[..., :count], expected, atol=1e-6)
    assert larger.config.vocab_size == after.get_vocab_size()
    assert larger.lm_head.weight is larger.model.embed_tokens.weight
    assert torch.equal(larger.model.embed_tokens.weight[:count], old)


def test_a_new_token_begins_as_the_mean_of_its_two(before: Tokenizer, after: Tokenizer) -> None:
    torch.manual_seed(0)
    larger = vocabulary.with_words(Qwen2ForCausalLM(base.configuration(before)), before, after)
    weights, numbers = larger.model.embed_tokens.weight, after.get_vocab()
    (left, right) = vocabulary.merges(after)[-1]
    assert torch.allclose(weights[numbers[left + right]], (weights[numbers[left]] + weights[numbers[right]]) / 2)
