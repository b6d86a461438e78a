# ruff: noqa: S311 - texts drawn by seed, not secrets
"""The base model's training texts: only answers to the prompt that is shown are learnt."""

import itertools
from collections.abc import Callable
from random import Random

import pytest
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.pretraining import texts
from dualtune_edge_kit.training.pretraining.texts import Document

from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate

OPENING = "<|im_start|>assistant\n"


def test_of_the_last_turn_the_rest_is_context() -> None:
    text = f"<|im_start|>user\na<|im_end|>\n{OPENING}b<|im_end|>\n<|im_start|>user\nc<|im_end|>\n{OPENING}d<|im_end|>\n"
    document = Document.of_last_turn(text)
    assert document.text == f"{OPENING}d<|im_end|>\n"
    assert document.context + document.text == text


@pytest.mark.parametrize("make", [texts.routing, texts.routing_on])
def test_routing_teaches_one_toolset_that_is_on_offer(make: Callable[[Random, ChatTemplate], Document]) -> None:
    base = texts.read_templates().base
    rng = Random(5)
    for _ in range(50):
        document = make(rng, base)
        assert document.text.count(OPENING) == 1
        name = document.text.partition('{"name": "')[2].partition('"')[0]
        assert f"\n{name}: " in document.context.partition("<|im_end|>")[0]


def test_arguments_teach_only_calls_of_the_tool_that_is_shown() -> None:
    template = texts.read_templates().arguments
    rng = Random(6)
    several = 0
    for _ in range(50):
        document = texts.arguments(rng, template)
        shown = (document.context + document.text).split("\n")[1].partition("(")[0]
        calls = [part.partition('"')[0] for part in document.text.split('<tool_call>{"name": "')[1:]]
        assert set(calls) == {shown}
        several += len(calls) > 1
    assert several > 5


def test_every_kind_of_text_is_drawn_and_a_seed_draws_the_same() -> None:
    templates = texts.read_templates()
    drawn = [list(itertools.islice(texts.documents(7, templates, copying=0.3, echoing=0.5), 80)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    routed = [
        document for document in drawn[0] if any(f'{{"name": "{name}"' in document.text for name in toolsets.NAMES)
    ]
    assert 0 < len(routed) < 40
