# ruff: noqa: S311 - texts drawn by seed, not secrets
"""Texts about servers like the kit's two: what is called is on offer, and the real servers are not shown."""

import itertools
import re
from random import Random

import pytest
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.pretraining import kindred, texts
from dualtune_edge_kit.training.pretraining.second import Lengths
from dualtune_edge_kit.training.pretraining.texts import Templates

LENGTHS = Lengths(lines=(1, 2), tools=(2, 4, 14), requests=(1, 2))


@pytest.fixture(scope="module")
def templates() -> Templates:
    return texts.read_templates()


def test_what_is_learnt_is_on_offer(templates: Templates) -> None:
    rng = Random(1)
    for _ in range(300):
        document = rng.choice((kindred.document, kindred.drill))(rng, templates, LENGTHS)
        whole = document.context + document.text
        head = whole.partition("<|im_end|>")[0]
        learnt = re.findall(r'<tool_call>\{"name": "([^"]+)"', document.text)
        assert [name for name in learnt if not re.search(rf"^{re.escape(name)}\b", head, re.MULTILINE)] == []


def test_no_text_offers_a_real_tool(templates: Templates) -> None:
    real = {tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}
    rng = Random(2)
    for _ in range(300):
        document = rng.choice((kindred.document, kindred.drill))(rng, templates, LENGTHS)
        head = (document.context + document.text).partition("<|im_end|>")[0]
        assert not real & set(re.findall(r"^\w+", head, re.MULTILINE))


def test_the_second_courses_texts_are_among_them(templates: Templates) -> None:
    drawn = list(itertools.islice(kindred.documents("0", templates, LENGTHS), 80))
    assert drawn == list(itertools.islice(kindred.documents("0", templates, LENGTHS), 80))
    assert any('{"name": "pick"' in document.text for document in drawn)


def test_a_drill_is_of_calls_alone(templates: Templates) -> None:
    rng = Random(3)
    for _ in range(100):
        text = kindred.drill(rng, templates, LENGTHS).text
        turns = re.findall(r"<\|im_start\|>assistant\n(.*?)<\|im_end\|>", text, re.DOTALL)
        assert [turn for turn in turns if not turn.startswith("<tool_call>")] == []
        assert len(turns) > 1
