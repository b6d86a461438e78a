"""A chat template with its tokenizer and tools: prompts, and what a stage needs of them for its plan.

The template alone defines the format: every text here is a difference between two renders of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import cycle
from typing import Any, Final, TypeVar

from tokenizers import Encoding, Tokenizer

from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.control_tokens import ControlTokens
from dualtune_edge.toolkit.prompts.growing_text import GrowingTexts, shared_length
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompt_plan import STYLES, Frame, JsonStyle, PromptPlan
from dualtune_edge.toolkit.tools.toolset import Tool

Item = TypeVar("Item")
# First messages that begin in ways which merge differently with the text before them.
_PROBES: Final = ("a", "Zebra", " indented", "\nnew line", "7", "/path", '"quoted"', "ü")
_CONTEXT: Final = (user(_PROBES[0]),)
_ANSWER_ID: Final = "answer000"
_TIMES: Final = (datetime(2019, 1, 28, 3, 4, 5), datetime(2034, 12, 7, 16, 57, 38))  # noqa: DTZ001 - alike in no part


@dataclass(frozen=True)
class Wrapping:
    """The text before and behind the arguments in a call, to the end of what the template writes."""

    head: str
    tail: str
    style: JsonStyle


@dataclass(frozen=True)
class Completion:
    """A prompt with an answer behind it, in tokens and in text."""

    prompt: str
    text: str  # of the answer, to the end of what the template writes
    encoding: Encoding  # of prompt + text
    start: int  # the answer's first token

    @property
    def tokens(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return tuple(self.encoding.ids[self.start :])


@dataclass(frozen=True)
class Prompter:
    """One template with its tokenizer, tools and (for arguments) the chosen tool.

    `unlisted` are names to choose besides those of the tools: entries that the template lists by itself. `texts`
    tokenizes what prompts share with earlier ones once; by default each is tokenized whole. A template that shows
    `all_toolsets` is given them, and in an answer `toolset`, whose tool is called; None: a toolset is chosen.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    tools: tuple[Tool, ...]
    tool: str | None = None
    unlisted: tuple[str, ...] = ()
    texts: GrowingTexts | None = None
    all_toolsets: AllToolsets | None = None
    toolset: str | None = None

    @classmethod
    def of(
        cls,
        plan: PromptPlan,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        all_toolsets: AllToolsets | None,
        texts: GrowingTexts | None = None,
    ) -> Prompter:
        """The prompter of a plan, with its template compiled; it is given `all_toolsets` where the plan shows them."""
        given = all_toolsets if plan.shows_toolsets else None
        return cls(template, tokenizer, plan.tools, plan.tool, texts=texts, all_toolsets=given, toolset=plan.toolset)

    @property
    def choices(self) -> tuple[str, ...]:
        """All names that a selection chooses among."""
        return (*(tool.name for tool in self.tools), *self.unlisted)

    def text(
        self,
        messages: Sequence[Message],
        *,
        generate: bool,
        now: datetime | None = None,
        date: datetime | None = None,
    ) -> str:
        """Render; with `generate`, up to where the assistant's next words begin. `now`, `date`: see `ChatTemplate`."""
        return self.template.render(
            messages,
            self.tools,
            tool=self.tool,
            generate=generate,
            now=now,
            date=date,
            all_toolsets=self.all_toolsets,
            toolset=self.toolset,
        )

    def encode(self, text: str) -> Encoding:
        """Tokens of a rendered text. The template has written the special tokens, so none are added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def tokens(self, messages: Sequence[Message], date: datetime | None = None) -> tuple[int, ...]:
        """The prompt's token ids. A control token in the messages is text: see `control_tokens`.

        Args:
            messages: the conversation.
            date: of the request, for templates that write one; by default today's.

        Raises:
            TemplateError: the template cannot render the messages.
            RequestError: a control token in them cannot be written as text.

        """
        if self.control_token_in([message.model_dump() for message in messages]) is None:
            text = self.text(messages, generate=True, date=date)
            return self.texts.tokens(text) if self.texts else tuple(self.encode(text).ids)
        marked, mark = self._controls.marked(messages)
        return tuple(self._controls.encode(self.text(marked, generate=True, date=date), mark))

    def control_token_in(self, value: object) -> str | None:
        """The first control token in a JSON value's texts."""
        return self._controls.first_in(value)

    def completion_text(self, messages: Sequence[Message], answer: Message) -> tuple[str, str]:
        """(prompt, what the template writes after it for `answer`).

        Raises:
            TemplateError: the render with the answer does not begin with the prompt.

        """
        now = datetime.now()  # noqa: DTZ005 - both renders are of one time, as the user's clock has it
        prompt = self.text(messages, generate=True, now=now)
        full = self.text([*messages, _identified(answer)], generate=False, now=now)
        if not full.startswith(prompt):
            raise TemplateError(
                self.template.where,
                found="a render with the assistant's turn that does not begin with the generation prompt",
                expected="render(messages + answer) to begin with render(messages, add_generation_prompt=true)",
                fix="Let the template write the same text before an assistant's turn in both cases.",
            )
        return prompt, full[len(prompt) :]

    def prefix(self) -> tuple[int, ...]:
        """The static prefix: tokens that every conversation with these tools begins with, on every day."""
        renders = [
            self.text([user(probe)], generate=True, now=now) for probe, now in zip(_PROBES, cycle(_TIMES), strict=False)
        ]
        return common_prefix([_ids(self.tokenizer, text) for text in renders])

    def writes_date(self) -> bool:
        """Whether its prompts change from day to day."""
        return len({self.text(_CONTEXT, generate=True, now=now) for now in _TIMES}) > 1

    def reads_date_string(self) -> bool:
        """Whether its prompts change where a request gives a date, and the date is today's."""
        now = _TIMES[0]
        dated = self.text(_CONTEXT, generate=True, date=now)
        return dated != self.text(_CONTEXT, generate=True, now=now)

    def completion(self, answer: Message) -> tuple[int, ...]:
        """Token ids of the answer after the prompt, to the end of its turn.

        Raises:
            TemplateError: as for `complete`.

        """
        prompt, text = self._answered(_CONTEXT, answer)
        before, whole = self._ids(prompt), self._ids(prompt + text)
        if whole[: len(before)] != before:
            raise self._no_border()
        return whole[len(before) :]

    def complete(self, messages: Sequence[Message], answer: Message) -> Completion:
        """The prompt of `messages` with `answer` behind it.

        Raises:
            TemplateError: the render with the answer does not begin with the prompt, in text or in tokens; or a message
                holds a control token.

        """
        prompt, text = self._answered(messages, answer)
        before, encoding = _ids(self.tokenizer, prompt), self.encode(prompt + text)
        if tuple(encoding.ids[: len(before)]) != before:
            raise self._no_border()
        return Completion(prompt=prompt, text=text, encoding=encoding, start=len(before))

    def _answered(self, messages: Sequence[Message], answer: Message) -> tuple[str, str]:
        """`completion_text` of messages that hold no control token."""
        if token := self.control_token_in([message.model_dump() for message in (*messages, answer)]):
            raise TemplateError(
                self.template.where,
                found=f"{token!r}, a token of the template's own, in a message",
                expected="conversations without it, where an answer is rendered behind them",
                fix="Remove it from the conversation.",
            )
        return self.completion_text(messages, answer)

    def _ids(self, text: str) -> tuple[int, ...]:
        return self.texts.tokens(text) if self.texts else _ids(self.tokenizer, text)

    def wrapping(self) -> Wrapping:
        """What the template writes around the arguments of `tool`, read off renders with several arguments.

        Raises:
            TemplateError: the template does not write the arguments as one JSON object.

        """
        probes = self._argument_probes()
        written = [self.completion_text(_CONTEXT, answer)[1] for answer in probes]
        arguments = [answer.tool_calls[0].function.arguments for answer in probes]
        for style in STYLES:
            for head, tail in _cuts(written[0], style.dumps(arguments[0])):
                if written == [head + style.dumps(probe) + tail for probe in arguments]:
                    return Wrapping(head, tail, style)
        raise TemplateError(
            self.template.where,
            found=f"arguments of {self.tool!r} rendered as {written[0]!r}",
            expected="the arguments once, as one JSON object (Jinja's tojson)",
            fix="Write them with `tool_call.function.arguments | tojson`.",
        )

    def frame(self) -> Frame:
        """What surrounds the arguments of `tool`, in tokens as far as these are the same for all arguments.

        Raises:
            TemplateError: as for `wrapping` and `complete`.

        """
        wrapping = self.wrapping()
        completions = [self.complete(_CONTEXT, answer) for answer in self._argument_probes()]
        stable = common_prefix([completion.tokens for completion in completions])
        first = completions[0]
        border, offsets = len(first.prompt) + len(wrapping.head), first.encoding.offsets[first.start :]
        keep = len(stable)
        while keep and offsets[keep - 1][1] > border:
            keep -= 1
        reached = offsets[keep - 1][1] if keep else len(first.prompt)
        style = wrapping.style
        return Frame(
            tokens=stable[:keep],
            pending=(first.prompt + wrapping.head)[reached:],
            tail=self._before_special(wrapping.tail),
            item_separator=style.item_separator,
            key_separator=style.key_separator,
            ascii_only=style.ascii_only,
        )

    @cached_property
    def _controls(self) -> ControlTokens:
        return ControlTokens.of(self.tokenizer, self.template.literals)

    @cached_property
    def special_tokens(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    def _argument_probes(self) -> list[Message]:
        """Calls of the tool with arguments that begin in ways which merge differently with the text before them."""
        if self.tool is None:
            raise ValueError("a frame needs the tool whose arguments it surrounds")
        schemas = (tool.parameters for tool in self.tools if tool.name == self.tool)
        declared = next(schemas, {}).get("properties", {})
        names = {name[:1]: name for name in (*declared, "a")}
        probes: list[dict[str, Any]] = [{"é": [1, {"b": "ü"}], "c": 2.5}, {}, *({name: "x"} for name in names.values())]
        return [call(self.tool, probe) for probe in probes]

    def _no_border(self) -> TemplateError:
        return TemplateError(
            self.template.where,
            found="a prompt whose last token changes with the answer behind it",
            expected="a generation prompt that ends at a token's border",
            fix="End it with a newline or a special token.",
        )

    def _before_special(self, text: str) -> str:
        """The text up to its first special token: what is left of the turn to be forced."""
        encoding = self.encode(text)
        tokens = zip(encoding.ids, encoding.offsets, strict=True)
        starts = (offsets[0] for token, offsets in tokens if token in self.special_tokens)
        return text[: next(starts, len(text))]


def _identified(answer: Message) -> Message:
    """The answer with an id for each of its calls: Mistral's templates ask for one of nine letters and digits."""
    calls = tuple(call.model_copy(update={"id": call.id or _ANSWER_ID}) for call in answer.tool_calls)
    return answer.model_copy(update={"tool_calls": calls})


def common_prefix(sequences: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """The longest run of items (tokens, characters) that all sequences begin with."""
    first, *others = map(tuple, sequences)
    return first[: min((shared_length(first, other) for other in others), default=len(first))]


@lru_cache(maxsize=2 * len(_PROBES))  # 117 tools in full JSON take 44 ms, and without a tool's own words are the same
def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def _cuts(text: str, arguments: str) -> Iterator[tuple[str, str]]:
    """(before, behind) the arguments, at each place of the text where they could stand."""
    at = text.find(arguments)
    while at >= 0:
        yield text[:at], text[at + len(arguments) :]
        at = text.find(arguments, at + 1)
