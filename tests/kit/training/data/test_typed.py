"""Requests as people type them: calls fit the schemas, words give the values, and each turn is learnt once."""

import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.data.typed import conversations, requests

from dualtune_edge.toolkit.prompts.messages import Message

CONVERSATIONS = list(conversations.conversations(5, "train", 600))
_MEANT = {"dryRun", "sortBy", "branch_type", "max_count"}  # whose values may be said in other words


def tool(name: str) -> Any:
    tools = toolsets.load(requests.toolset_of(name)).toolset.tools
    return next(known for known in tools if known.name == name)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
    else:
        yield str(value)


def test_calls_fit_their_schemas_and_are_made_of_the_conversations_words() -> None:
    for messages in CONVERSATIONS:
        for index, message in enumerate(messages):
            before = "\n".join(earlier.content for earlier in messages[:index])
            for call in message.tool_calls:
                name, arguments = call.function.name, call.function.arguments
                assert tool(name).reading.fault(arguments) is None
                said = [text for key, value in arguments.items() if key not in _MEANT for text in texts(value)]
                assert [text for text in said if text not in before] == [], before


def test_a_third_of_the_conversations_have_two_calls_or_more() -> None:
    several = sum(sum(bool(message.tool_calls) for message in messages) > 1 for messages in CONVERSATIONS)
    assert 0.3 < several / len(CONVERSATIONS) < 0.6


def test_every_call_is_learnt_in_the_view_of_its_toolset_alone() -> None:
    for messages in CONVERSATIONS:
        views = dict(conversations.views(messages))
        for index, message in enumerate(messages):
            learnt = [name for name, view in views.items() if view[index].weight != 0]
            if message.tool_calls:
                assert learnt == [requests.toolset_of(message.tool_calls[0].function.name)]


def test_an_answer_belongs_to_the_last_call_or_to_both() -> None:
    said = Message(role="assistant", content="Done.")
    chat = (Message(role="user", content="hi"), said)
    assert list(conversations.views(chat)) == [("filesystem", chat), ("git", chat)]


@pytest.mark.parametrize("name", toolsets.NAMES)
def test_each_tool_has_wordings_of_both_parts_and_they_share_none(name: str) -> None:
    rng = Random(0)  # noqa: S311 - a draw, not a secret
    known = requests.typed_wordings(name)
    assert set(known) == {tool.name for tool in toolsets.load(name).toolset.tools}
    for wordings in known.values():
        assert len(wordings) > 25
        parts = [{requests.drawn(rng, wordings, part) for _ in range(400)} for part in ("train", "development")]
        assert not parts[0] & parts[1]


def test_conversations_follow_from_their_seed() -> None:
    again = itertools.islice(conversations.conversations(5, "train", 600), 20)
    assert list(again) == CONVERSATIONS[:20]
