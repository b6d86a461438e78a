"""The invocation of a new activated adapter: the tokens with which its template begins an assistant's turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompter import Prompter

# Conversations that end in ways which merge differently with what is written behind them.
_ENDINGS: Final = ("a", "7", "end.", "two\nlines\n", "space ", "ü", '{"a": 1}')


def invocation_of(prompter: Prompter) -> tuple[int, ...]:
    """The tokens of the generation prompt.

    Raises:
        TemplateError: there is none, it is not the same behind every conversation, or a token reaches across its start.

    """
    name = prompter.tool or next(iter(prompter.choices), "a")
    conversations: list[list[Message]] = [[user(ending)] for ending in _ENDINGS]
    conversations += [
        [user("a"), call(name), Message(role="tool", content=ending), user(ending)] for ending in _ENDINGS
    ]
    conversations += [[user("a"), call(name), Message(role="tool", content=ending)] for ending in _ENDINGS]
    first, *others = (_generation_prompt(prompter, messages) for messages in conversations)
    if not first or any(other != first for other in others):
        raise _refusal(prompter)
    return first


def _generation_prompt(prompter: Prompter, messages: Sequence[Message]) -> tuple[int, ...]:
    """The tokens behind a conversation; none where they do not begin with it."""
    before, text = prompter.text(messages, generate=False), prompter.text(messages, generate=True)
    encoding = prompter.encode(text)
    starts = [start for start, _ in encoding.offsets]
    if not text.startswith(before) or len(before) not in starts:
        return ()
    return tuple(encoding.ids[starts.index(len(before)) :])


def _refusal(prompter: Prompter) -> TemplateError:
    return TemplateError(
        prompter.template.where,
        found="no generation prompt, one that is not always the same, or one that is joined with the text before it",
        expected="the same tokens behind every conversation, from which on an activated adapter is in force",
        fix="Begin an assistant's turn with a control token; or train a plain adapter, without --activated.",
    )
