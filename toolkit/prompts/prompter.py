"""A chat template with its tokenizer and tools: prompts, and what a stage needs of them for its plan.

The template alone defines the format: every text here is a difference between two renders of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import cycle
from typing import Final, TypeVar

from tokenizers import Encoding, Tokenizer

from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.control_tokens import ControlTokens
from dualtune_edge.toolkit.prompts.growing_text import GrowingTexts, shared_length
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan
from dualtune_edge.toolkit.tools.toolset import Tool

Item = TypeVar("Item")
# First messages that begin in ways which merge differently with the text before them.
_PROBES: Final = ("a", "Zebra", " indented", "\nnew line", "7", "/path", '"quoted"', "ü")
CONTEXT: Final = (user(_PROBES[0]),)  # before an answer whose form is read off
_ANSWER_ID: Final = "answer000"
_TIMES: Final = (datetime(2019, 1, 28, 3, 4, 5), datetime(2034, 12, 7, 16, 57, 38))  # noqa: DTZ001 - alike in no part


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
        return len({self.text(CONTEXT, generate=True, now=now) for now in _TIMES}) > 1

    def reads_date_string(self) -> bool:
        """Whether its prompts change where a request gives a date, and the date is today's."""
        now = _TIMES[0]
        dated = self.text(CONTEXT, generate=True, date=now)
        return dated != self.text(CONTEXT, generate=True, now=now)

    def completion(self, answer: Message) -> tuple[int, ...]:
        """Token ids of the answer after the prompt, to the end of its turn.

        Raises:
            TemplateError: as for `complete`.

        """
        prompt, text = self._answered(CONTEXT, answer)
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

    @cached_property
    def _controls(self) -> ControlTokens:
        return ControlTokens.of(self.tokenizer, self.template.literals)

    @cached_property
    def special_tokens(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    def _no_border(self) -> TemplateError:
        return TemplateError(
            self.template.where,
            found="a prompt whose last token changes with the answer behind it",
            expected="a generation prompt that ends at a token's border",
            fix="End it with a newline or a special token.",
        )


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
