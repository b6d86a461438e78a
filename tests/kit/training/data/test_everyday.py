# ruff: noqa: S311 - tools drawn by seed, not secrets
"""Made-up tools and requests in other words: each word has one meaning, and each value is said."""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from dualtune_edge_kit.training.data import everyday, toolsets
from dualtune_edge_kit.training.data.everyday import EverydayTool, Meaning


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


def _sets(count: int) -> Iterator[tuple[Random, tuple[EverydayTool, ...]]]:
    for seed in range(count):
        rng = Random(seed)
        yield rng, everyday.make_tools(rng, 8)


def test_no_word_or_phrase_has_two_meanings() -> None:
    known = everyday.meanings()
    for meanings in (known.actions, known.things, known.modifiers):
        words = Counter(word for meaning in meanings for word in {*meaning.words, *meaning.said})
        assert [word for word, count in words.items() if count > 1] == []


def test_calls_fit_their_schemas_and_every_text_is_said() -> None:
    for rng, tools in _sets(60):
        for made in tools:
            request = everyday.make_request(rng, made)
            assert made.tool.reading.fault(request.call.arguments) is None
            assert [text for text in _texts(request.call.arguments) if text not in request.text] == [], request


def test_tools_of_a_set_differ_and_none_is_a_real_servers() -> None:
    real = {tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}
    for _, tools in _sets(60):
        assert len({made.tool.name for made in tools}) == len(tools)
        assert len({made.sense for made in tools}) == len(tools)
        assert not {made.tool.name for made in tools} & real


def test_tools_of_a_set_share_actions_or_things() -> None:
    shared = [
        sum(other.sense.action is made.sense.action or other.sense.thing is made.sense.thing for other in tools) > 1
        for _, tools in _sets(30)
        for made in tools
    ]
    assert sum(shared) > 0.7 * len(shared)


def test_most_requests_say_another_word_than_the_tool() -> None:
    other = [
        not set(everyday.make_request(rng, made).text.lower().split()) & set(made.tool.description.lower().split()[:1])
        for rng, tools in _sets(30)
        for made in tools
    ]
    assert sum(other) > 0.5 * len(other)


def test_a_meaning_says_what_it_is() -> None:
    thing = next(meaning for meaning in everyday.meanings().things if "folder" in meaning.words)
    assert isinstance(thing, Meaning)
    assert thing.kind is not None
    assert "dir" in thing.said
