"""Requests: what is refused is named, what is not read is noted."""

from __future__ import annotations

from typing import Any

import pytest

from dualtune_edge.runtime.decode.conversation import notes, read_messages
from dualtune_edge.toolkit.errors import RequestError

ASK = {"role": "user", "content": "Water the fern"}
CALL = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "water", "arguments": ""}}]}


@pytest.mark.parametrize(
    ("messages", "where", "complaint"),
    [
        ([{"role": "tool", "content": "ok"}], "messages.0", "no call before it"),
        ([ASK, CALL, {"role": "tool", "tool_call_id": "zzz", "content": "ok"}], "messages.2", "'zzz'.*one of 'c'"),
        ([{"role": "user"}], "messages.0", "a user message says something"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages.0", "no model here reads"),
        ([ASK, CALL], "last message", "'assistant'"),
    ],
)
def test_what_protects_is_strict(messages: list[Any], where: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=rf"request, {where}.*{complaint}"):
        read_messages(messages)


@pytest.mark.parametrize("request_", [[], None, 5, {"role": "user", "content": "x"}])
def test_what_is_no_list_of_messages_is_refused(request_: Any) -> None:
    with pytest.raises(RequestError, match="expected a text, or a list of 1 to"):
        read_messages(request_)


def test_a_history_that_calls_no_tool_of_the_bundle_is_noted() -> None:
    request = [ASK, CALL, {"role": "tool", "tool_call_id": "c", "content": "ok"}]
    assert notes(request, read_messages(request), {"water"}) == ()
    assert notes(request, read_messages(request), {"prune"}) == (
        "the conversation calls 'water', which is no tool here",
    )
    assert notes("Water the fern", read_messages("Water the fern"), {"prune"}) == ()


def test_what_is_not_read_is_noted_once() -> None:
    cited = {"role": "assistant", "content": "a", "annotations": [{"type": "url_citation"}]}
    request = [ASK, cited, ASK, cited, ASK]
    assert notes(request, read_messages(request), ()) == ("the messages' annotations are not read",)
