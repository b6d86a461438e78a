"""The masks: which tokens of a sample are learnt. They are the method (DualTune, arXiv 2510.00229).

- selection: the tool's name and the token that closes it, where the choice between `read` and `read_file` falls;
- toolset: the same of a toolset's name;
- arguments: what follows the frame of the call, through the token that ends the arguments;
- joint: the whole call, to the end of the turn. This is the ordinary adapter;
- answer: the text of a turn without a call, to the end of the turn.

What follows the last learnt token has no influence on it and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from dualtune_edge.export.finetune.settings import Objective
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.frames import frame_of, wrapping_of
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompter import Completion, Prompter, common_prefix

_OTHER_NAMES: Final = ("A0", "b1")  # any name differs from one of them in its first and in its last letter


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens to feed; the last `learnt` of them are the targets."""

    tokens: tuple[int, ...]
    learnt: int


class Mask(Protocol):
    """Makes a sample of a turn, for one objective."""

    def sample(self, context: Sequence[Message], answer: Message) -> Sample:
        """A sample of an assistant's turn, in the context of the turns before it.

        Raises:
            TemplateError: the template does not write this turn as the device reads it.

        """


class SelectionMask:
    """Learns the name of the tool, or of the toolset."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._names = {name: _name_span(prompter, name) for name in prompter.choices}

    def sample(self, context: Sequence[Message], answer: Message) -> Sample:
        """Prompt and name, of which the name is learnt."""
        name = answer.tool_calls[0].function.name
        tokens, first, stop = self._names[name]
        completion = self._prompter.complete(context, call(name))
        if completion.tokens != tokens:
            raise TemplateError(
                self._prompter.template.where,
                found=f"a call of {name!r} written as {completion.text!r} after this conversation",
                expected="the same text and tokens after every conversation",
                fix="Let the answer depend on its call only.",
            )
        prompt = completion.encoding.ids[: completion.start]
        return Sample((*prompt, *tokens[:stop]), learnt=stop - first)


class ArgumentsMask:
    """Learns the arguments of one tool."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter, self._frame, self._wrapping = prompter, frame_of(prompter), wrapping_of(prompter)

    def sample(self, context: Sequence[Message], answer: Message) -> Sample:
        """Prompt, frame and arguments, of which the arguments are learnt."""
        completion = self._prompter.complete(context, answer)
        head, tail, length = self._wrapping.head, self._wrapping.tail, len(self._frame.tokens)
        framed = completion.text.startswith(head) and completion.text.endswith(tail)
        if not framed or completion.tokens[:length] != self._frame.tokens:
            raise TemplateError(
                self._prompter.template.where,
                found=f"a call of {self._prompter.tool!r} written as {completion.text!r}",
                expected=f"{head!r} + the arguments + {tail!r}, with the same tokens before them",
                fix="Let the template write the arguments once, by `| tojson`.",
            )
        end = len(completion.prompt) + len(completion.text) - len(tail)
        stop = _tokens_before(completion, end)
        return Sample(tuple(completion.encoding.ids[:stop]), learnt=stop - completion.start - length)


class TurnMask:
    """Learns the whole turn: a call, or a text."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter

    def sample(self, context: Sequence[Message], answer: Message) -> Sample:
        """Prompt and turn, of which the turn is learnt."""
        completion = self._prompter.complete(context, answer)
        special = self._prompter.special_tokens
        ends = [index for index, token in enumerate(completion.tokens, start=1) if token in special]
        learnt = ends[-1] if ends else len(completion.tokens)  # nothing is generated after the end of the turn
        return Sample(tuple(completion.encoding.ids[: completion.start + learnt]), learnt)


MASKS: Final[dict[Objective, Callable[[Prompter], Mask]]] = {
    "toolset": SelectionMask,
    "selection": SelectionMask,
    "arguments": ArgumentsMask,
    "joint": TurnMask,
    "answer": TurnMask,
}


def _name_span(prompter: Prompter, name: str) -> tuple[tuple[int, ...], int, int]:
    """(the completion's tokens, index of the first one of the name, index after the one that closes it).

    Raises:
        TemplateError: the call does not hold the name exactly once, plain or escaped for JSON.

    """
    context = [user("a")]
    completion = prompter.complete(context, call(name))
    texts = [completion.text, *(prompter.completion_text(context, call(other))[1] for other in _OTHER_NAMES)]
    head, tail = "".join(common_prefix(texts)), "".join(common_prefix([text[::-1] for text in texts]))[::-1]
    written = completion.text[len(head) : len(completion.text) - len(tail)]
    if written not in (name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1]):
        raise TemplateError(
            prompter.template.where,
            found=f"a call of {name!r} written as {completion.text!r}",
            expected="the tool's name exactly once",
            fix="Write it with `tool_call.function.name | tojson`.",
        )
    begin = len(completion.prompt) + len(head)
    first = next(index for index, (_, end) in enumerate(completion.encoding.offsets[completion.start :]) if end > begin)
    stop = _tokens_before(completion, begin + len(written) + 1) - completion.start
    return completion.tokens, first, stop


def _tokens_before(completion: Completion, end: int) -> int:
    """The number of tokens that start before this character."""
    return sum(start < end for start, _ in completion.encoding.offsets)
