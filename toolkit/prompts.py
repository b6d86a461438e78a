"""Chat templates, and what a stage needs of one: the static prefix, each tool's completion, the arguments' frame.

The template alone defines the format: every text here is a difference between two renders of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field
from tokenizers import Encoding, Tokenizer

from dualtune_edge.toolkit.chat_template import ChatTemplate
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.messages import Message, call, user
from dualtune_edge.toolkit.tools import Tool

NO_TOOL: Final = "summarize"  # DualTune's pseudo-tool: the turn answers in words
# First messages that begin in ways which merge differently with the text before them.
_PROBES: Final = ("a", "Zebra", " indented", "\nnew line", "7", "/path", '"quoted"', "ü")


class Frame(Frozen):
    """What surrounds the arguments of one tool's call, and how the template writes JSON.

    `tokens` follow the prompt; then come, as text, `pending` + the arguments + `tail`. Tokens may straddle these
    borders, so the constraint on the arguments covers all three.
    """

    tokens: tuple[int, ...]
    pending: str
    tail: str
    item_separator: str
    key_separator: str
    ascii_only: bool

    def dumps(self, arguments: dict[str, Any]) -> str:
        """The arguments as the template writes them."""
        separators = (self.item_separator, self.key_separator)
        return json.dumps(arguments, ensure_ascii=self.ascii_only, separators=separators)


class PromptPlan(Frozen):
    """All that the device needs to prompt one adapter (or the base): kept as one JSON file of the bundle.

    `stage` says what it is for: `completions` (tool → tokens after the prompt, to the end of the turn) is filled for
    a selection (of a tool, or of a toolset), `frame` for arguments. `tool` is the tool whose arguments are written.
    """

    stage: Literal["toolset", "selection", "arguments"]
    template: str
    tools: tuple[Tool, ...]
    tool: str | None = None
    prefix: tuple[int, ...] = ()
    completions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    frame: Frame | None = None


@dataclass(frozen=True)
class Prompter:
    """One template with its tokenizer, tools and (for arguments) the chosen tool."""

    template: ChatTemplate
    tokenizer: Tokenizer
    tools: tuple[Tool, ...]
    tool: str | None = None

    def text(self, messages: Sequence[Message], *, generate: bool) -> str:
        """Render; with `generate`, up to where the assistant's next words begin."""
        return self.template.render(messages, self.tools, tool=self.tool, generate=generate)

    def encode(self, text: str) -> Encoding:
        """Tokens of a rendered text. The template has written the special tokens, so none are added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def tokens(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The prompt's token ids."""
        return tuple(self.encode(self.text(messages, generate=True)).ids)

    def completion_text(self, messages: Sequence[Message], answer: Message) -> tuple[str, str]:
        """(prompt, what the template writes after it for `answer`).

        Raises:
            TemplateError: the render with the answer does not begin with the prompt.

        """
        prompt = self.text(messages, generate=True)
        full = self.text([*messages, answer], generate=False)
        if not full.startswith(prompt):
            raise TemplateError(
                self.template.where,
                found="a render with the assistant's turn that does not begin with the generation prompt",
                expected="render(messages + answer) to begin with render(messages, add_generation_prompt=true)",
                fix="Let the template write the same text before an assistant's turn in both cases.",
            )
        return prompt, full[len(prompt) :]

    def prefix(self) -> tuple[int, ...]:
        """The static prefix: tokens that every conversation with these tools begins with."""
        return common_prefix([self.tokens([user(probe)]) for probe in _PROBES])

    def completion(self, answer: Message) -> tuple[int, ...]:
        """Token ids of the answer after the prompt, to the end of its turn.

        Raises:
            TemplateError: the prompt's last token would be another one with the answer behind it.

        """
        prompt, text = self.completion_text([user(_PROBES[0])], answer)
        before, full = self.encode(prompt).ids, self.encode(prompt + text).ids
        if full[: len(before)] != before:
            raise TemplateError(
                self.template.where,
                found="a prompt whose last token changes with the answer behind it",
                expected="a generation prompt that ends at a token's border",
                fix="End it with a newline or a special token.",
            )
        return tuple(full[len(before) :])

    def frame(self) -> Frame:
        """What surrounds the arguments of `tool`, read off renders with several arguments.

        Raises:
            TemplateError: the template does not write the arguments as one JSON object.

        """
        tool = next(tool for tool in self.tools if tool.name == self.tool)
        names = [*tool.parameters.get("properties", {}), "a"]
        probes: list[dict[str, Any]] = [{}, {"é": [1, {"b": "ü"}], "c": 2.5}, *({name: "x"} for name in names[:2])]
        texts = [self.completion_text([user(_PROBES[0])], call(tool.name, probe)) for probe in probes]
        prompt = texts[0][0]
        written = [text for _, text in texts]
        for ascii_only, item, key in _DIALECTS:
            cut = [
                _cut(text, json.dumps(probe, ensure_ascii=ascii_only, separators=(item, key)))
                for text, probe in zip(written, probes, strict=True)
            ]
            if cut[0] is not None and all(each == cut[0] for each in cut):
                head, tail = cut[0]
                break
        else:
            raise TemplateError(
                self.template.where,
                found=f"arguments of {tool.name!r} rendered as {written[1]!r}",
                expected="the arguments once, as one JSON object (Jinja's tojson)",
                fix="Write them with `tool_call.function.arguments | tojson`.",
            )
        start = len(self.encode(prompt).ids)
        encodings = [self.encode(prompt + text) for text in written]
        stable = common_prefix([encoding.ids for encoding in encodings])
        border = len(prompt) + len(head)
        keep = len(stable)
        while keep > start and encodings[0].offsets[keep - 1][1] > border:
            keep -= 1
        if keep < start:
            raise TemplateError(
                self.template.where,
                found="a prompt whose last token changes with the answer behind it",
                expected="a generation prompt that ends at a token's border",
                fix="End it with a newline or a special token.",
            )
        reached = max(encodings[0].offsets[keep - 1][1], len(prompt))
        return Frame(
            tokens=tuple(stable[start:keep]),
            pending=(prompt + head)[reached:],
            tail=self._before_special(tail),
            item_separator=item,
            key_separator=key,
            ascii_only=ascii_only,
        )

    def _before_special(self, text: str) -> str:
        """The text up to its first special token: what is left of the turn to be forced."""
        encoding = self.encode(text)
        special = {token_id for token_id, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        starts = (offsets[0] for token, offsets in zip(encoding.ids, encoding.offsets, strict=True) if token in special)
        return text[: next(starts, len(text))]


def common_prefix(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest run of tokens that all sequences begin with."""
    first, length = sequences[0], min(map(len, sequences))
    for position in range(length):
        if any(other[position] != first[position] for other in sequences):
            return tuple(first[:position])
    return tuple(first[:length])


_DIALECTS: Final = [(ascii_only, item, key) for item, key in ((", ", ": "), (",", ":")) for ascii_only in (False, True)]


def _cut(text: str, arguments: str) -> tuple[str, str] | None:
    """(before, behind) the arguments in the text, if they stand in it exactly once."""
    if text.count(arguments) != 1:
        return None
    head, _, tail = text.partition(arguments)
    return head, tail
