# ruff: noqa: S311 - texts drawn by seed, not secrets
"""The second course's texts: each kind holds what it teaches, in every layout."""

import itertools
import json
import re
from random import Random
from typing import get_args

import pytest
from dualtune_edge_kit.training.data import toolsets, words
from dualtune_edge_kit.training.pretraining import second, texts
from dualtune_edge_kit.training.pretraining.second import Kind, Layout, Lengths
from dualtune_edge_kit.training.pretraining.texts import Templates

LENGTHS = Lengths(lines=(2, 3, 4), tools=(5, 8), requests=(1, 2))


@pytest.fixture(scope="module")
def templates() -> Templates:
    return texts.read_templates()


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_argument_stands_in_the_conversation_before_its_call(kind: Kind) -> None:
    rng = Random(kind)
    for _ in range(60):
        made = second.tools(rng, 6)
        messages = second.conversation(rng, made, kind, LENGTHS, "train")
        by_name = {tool.tool.name: tool.tool for tool in made}
        for index, message in enumerate(messages):
            before = "\n".join(earlier.content for earlier in messages[:index])
            for call in message.tool_calls:
                assert by_name[call.function.name].reading.fault(call.function.arguments) is None
                said = [value for value in call.function.arguments.values() if isinstance(value, str)]
                assert [value for value in said if value not in before] == []


def test_of_pointing_requests_most_take_a_value_from_a_result() -> None:
    rng = Random(3)
    taken = 0
    for _ in range(60):
        messages = second.conversation(rng, second.tools(rng, 5), "pointing", LENGTHS, "train")
        calls = [message.tool_calls[0].function for message in messages if message.tool_calls]
        asked = "\n".join(message.content for message in messages if message.role == "user")
        values = [value for call in calls[1:] for value in call.arguments.values() if isinstance(value, str)]
        taken += any(value not in asked for value in values)
    assert taken > 35


def test_several_calls_follow_one_request_joined_in_more_than_fifteen_ways() -> None:
    rng = Random(4)
    for _ in range(30):
        messages = second.conversation(rng, second.tools(rng, 5), "second", LENGTHS, "train")
        assert sum(message.role == "user" for message in messages) == 1
        assert sum(bool(message.tool_calls) for message in messages) >= 2
    assert len(second.typed.JOINTS["train"]) > 15


def test_no_tool_ends_in_an_answer_which_a_choice_learns_as_the_entry_for_none(templates: Templates) -> None:
    rng = Random(5)
    for layout in ("shared", "selection"):
        made = second.tools(rng, 5)
        messages = second.conversation(rng, made, "no tool", LENGTHS, "train")
        text = second.rendered(messages, tuple(tool.tool for tool in made), layout, templates).text
        assert text.rstrip().rpartition("<|im_start|>")[2].startswith('assistant\n<tool_call>{"name": "summarize"')


@pytest.mark.parametrize("layout", get_args(Layout))
def test_every_layout_renders_every_kind(layout: Layout, templates: Templates) -> None:
    rng = Random(layout)
    for kind in get_args(Kind):
        made = second.tools(rng, 1 if layout == "arguments" else 5)
        document = second.rendered(
            second.conversation(rng, made, kind, LENGTHS, "train"), tuple(tool.tool for tool in made), layout, templates
        )
        assert "<|im_start|>assistant" in document.text


def test_a_drill_picks_a_line_of_its_list() -> None:
    rng = Random(6)
    for _ in range(40):
        text = second.drill(rng, LENGTHS)
        shown = text.partition("<|im_end|>")[0]
        for picked in re.findall(r'"parameters": ({.*?})}</tool_call>', text):
            assert json.loads(picked)["it"] in shown


def test_texts_follow_from_their_seed_and_hold_no_heldout_word(templates: Templates) -> None:
    drawn, again = (list(itertools.islice(second.documents("7", templates, LENGTHS), 250)) for _ in range(2))
    assert drawn == again
    said = set(re.findall("[a-z]+", " ".join(document.context + document.text for document in drawn).lower()))
    assert not said & set(words.HELDOUT_NOUNS + words.HELDOUT_VERBS)


def test_no_real_tool_is_called(templates: Templates) -> None:
    real = {tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}
    drawn = itertools.islice(second.documents("8", templates, LENGTHS), 250)
    called = {name for document in drawn for name in re.findall('<tool_call>{"name": "(.*?)"', document.text)}
    assert not called & real
