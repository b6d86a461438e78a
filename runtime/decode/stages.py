"""The stages of a bundle on one engine: each renders its prompt, reuses what is known of it, and is answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib import resources
from typing import Final

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.decode.arguments import Arguments, write_arguments
from dualtune_edge.runtime.decode.choice import Choice, choose_behind
from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.runtime.decode.sources import Sources, not_in_conversation
from dualtune_edge.runtime.decode.text import write_text
from dualtune_edge.runtime.decode.tokenizers_ahead import TokenizersAhead
from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.runtime.grammar.copies import Copies, NotHeldError, compile_copies
from dualtune_edge.runtime.grammar.grammar import Grammar, compile_grammar
from dualtune_edge.runtime.grammar.pieces import conversation
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.result import AnswerTokens, Tokens
from dualtune_edge.runtime.reuse.kv_reuse import KvReuse
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.errors import BundleError, EngineError, Reached
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.growing_text import GrowingTexts
from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.prompt_plan import Frame, PromptPlan
from dualtune_edge.toolkit.prompts.prompter import Prompter

_ANSWER: Final = Stage(prompt="answer")  # the base's text, where no file of the bundle describes another


@dataclass(frozen=True)
class StagePrompt:
    """A stage's prompt, ready to render."""

    stage: Stage
    plan: PromptPlan
    prompter: Prompter


class PromptOverflow(Exception):  # noqa: N818 - caught by the call, which shortens the conversation or says so
    """A prompt is longer than it may be: `tokens`."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        super().__init__(tokens)


@dataclass
class Progress:
    """What one call has used and chosen so far.

    `longest`: the most tokens that a prompt may have; None: what the engine takes. `most`: the same of the arguments.
    `date`: of the request; None: today. `copied`: whether copied properties are held to the conversation.
    """

    longest: int | None = None
    date: datetime | None = None
    most: int = limits.ARGUMENT_TOKENS
    copied: bool = True
    start: float = field(default_factory=time.perf_counter)
    prompt: int = 0
    reused: int = 0
    forced: int = 0
    decided: int = 0
    drafted: int = 0
    accepted: int = 0
    forwards: int = 0
    notes: list[str] = field(default_factory=list)
    reached: Reached = field(default_factory=Reached)

    def add(self, answer: Choice | Arguments) -> None:
        """Count an answer's tokens."""
        self.forced += answer.forced
        self.decided += answer.decided
        self.forwards += answer.forwards

    def tokens(self) -> Tokens:
        """Of all stages so far."""
        names = ("prompt", "reused", "forced", "decided", "drafted", "accepted", "forwards")
        return Tokens(**{name: getattr(self, name) for name in names})

    def elapsed(self) -> float:
        """Milliseconds since the call began."""
        return round(1e3 * (time.perf_counter() - self.start), 3)


@dataclass(frozen=True)
class Written:
    """A tool's arguments, and where they hold a text that the conversation does not."""

    arguments: Arguments
    not_in_conversation: tuple[str, ...]


class Stages:
    """Answers the stages of one bundle, one at a time."""

    def __init__(self, bundle: Bundle, engine: Engine, levers: Levers, tokenizers: TokenizersAhead) -> None:
        self._bundle, self._engine, self._levers, self._tokenizers = bundle, engine, levers, tokenizers
        self._prompts: dict[str, StagePrompt] = {}
        self._grammars: dict[str, Grammar] = {}
        self._copies: dict[str, Copies | None] = {}
        self._reuse = KvReuse(engine, bundle, levers, limits.SNAPSHOT_BYTES)

    @property
    def kept_bytes(self) -> int:
        """Bytes of KV values kept for later prompts."""
        return self._reuse.nbytes

    def choose(self, stage: Stage, messages: Sequence[Message], among: Collection[str], progress: Progress) -> Choice:
        """The most probable completion of those named in `among`."""
        prompt = self._prompt(stage)
        if not prompt.plan.completions:
            raise self._no_prompt(stage, "completions")
        tokens, held = self._begin(prompt, messages, progress)
        levers = self._levers
        completions = {name: answer for name, answer in prompt.plan.completions.items() if name in among}
        choice = choose_behind(self._engine, tokens[held:], completions, ride=levers.forced, ahead=levers.lookahead)
        self._reuse.keep(stage, prompt.plan.prefix, tokens)
        progress.add(choice)
        return choice

    def write(self, stage: Stage, messages: Sequence[Message], progress: Progress) -> Written:
        """The arguments of a stage's tool."""
        prompt = self._prompt(stage)
        frame = prompt.plan.frame
        if frame is None:
            raise self._no_prompt(stage, "frame")
        tokens, held = self._begin(prompt, messages, progress)
        grammar, sources = self._grammar(prompt, frame, messages, progress), Sources.of(messages, frame)
        written = write_arguments(
            self._engine,
            (*tokens, *frame.tokens)[held:],
            grammar,
            Drafter.of(sources, grammar.tool) if self._levers.drafts else None,
            ride=self._levers.forced,
            most=progress.most,
            sources=sources,
        )
        if written.forwards:  # without one the engine lacks the prompt
            self._reuse.keep(stage, prompt.plan.prefix, tokens)
        progress.add(written)
        progress.forced += len(frame.tokens)
        progress.drafted += written.drafted
        progress.accepted += written.accepted
        return Written(written, not_in_conversation(written.value, grammar.tool.parameters, sources))

    def text(
        self, messages: Sequence[Message], *, max_tokens: int, temperature: float, seed: int, date: datetime | None
    ) -> Generator[str, None, AnswerTokens]:
        """The text behind a conversation, piece by piece, by the answer's adapter or the base; returns its tokens."""
        prompt = self._answer
        stage, prefix = prompt.stage, prompt.plan.prefix
        tokens = prompt.prompter.tokens(messages, date)
        held = self._reuse.begin(stage, prefix, tokens)
        try:
            end = yield from write_text(
                self._engine,
                tokens[held.tokens :],
                self._tokenizers.base,
                end=self._bundle.manifest.base.end_of_turn,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
            )
            return AnswerTokens(prompt=len(tokens), reused=held.reused, written=end.tokens, ended=end.ended)
        finally:
            if self._engine.tokens[: len(tokens)] == tokens:
                with contextlib.suppress(EngineError):  # closed meanwhile: there is nothing to keep
                    self._reuse.keep(stage, prefix, tokens)

    def longest(self, stages: Iterable[Stage], messages: Sequence[Message]) -> int:
        """Tokens of the longest prompt of these stages, with what is forced behind it."""
        prompts = map(self._prompt, stages)
        return max(len(prompt.prompter.tokens(messages)) + _forced(prompt.plan) for prompt in prompts)

    def _begin(
        self, prompt: StagePrompt, messages: Sequence[Message], progress: Progress
    ) -> tuple[tuple[int, ...], int]:
        """The prompt's tokens, and how many the engine holds now of them and of the frame behind them.

        Raises:
            PromptOverflow: they are more than the call allows.

        """
        tokens, prefix = prompt.prompter.tokens(messages, progress.date), prompt.plan.prefix
        length = len(tokens) + _forced(prompt.plan)
        if progress.longest is not None and length > progress.longest:
            raise PromptOverflow(length)
        frame = prompt.plan.frame.tokens if prompt.plan.frame else ()
        held = self._reuse.begin(prompt.stage, prefix, tokens, frame)
        progress.prompt += len(tokens)
        progress.reused += min(held.reused, len(tokens))
        progress.forwards += held.forwards
        if note := self._reuse.note(prompt.stage, prefix):
            progress.notes.append(note)
        return tokens, held.tokens

    def _prompt(self, stage: Stage) -> StagePrompt:
        if stage.prompt not in self._prompts:
            plan, tokenizer = self._bundle.plan(stage), self._bundle.manifest.tokenizer
            template = ChatTemplate(plan.template, where=stage.prompt, bos=tokenizer.bos, eos=tokenizer.eos)
            prompter = Prompter.of(plan, template, self._tokenizers.base, self._bundle.all_toolsets, self._texts)
            self._prompts[stage.prompt] = StagePrompt(stage, plan, prompter)
        return self._prompts[stage.prompt]

    @cached_property
    def _texts(self) -> GrowingTexts:
        """Prompts of all stages: those of one conversation have most of their text in common."""
        return GrowingTexts(self._tokenizers.base)

    @cached_property
    def _answer(self) -> StagePrompt:
        """The answer's prompt: the bundle's, or that of the base's own template."""
        if self._bundle.manifest.answer:
            return self._prompt(self._bundle.manifest.answer)
        own, tokenizer = self._bundle.chat_template, self._bundle.manifest.tokenizer
        source = own or (resources.files("dualtune_edge.toolkit") / "templates" / "answer.jinja").read_text("utf-8")
        where = "the base's chat template" if own else "the built-in template for answers"
        template = ChatTemplate(source, where=where, bos=tokenizer.bos, eos=tokenizer.eos)
        prompter = Prompter(template, self._tokenizers.base, (), texts=self._texts)
        return StagePrompt(_ANSWER, PromptPlan(stage="answer", template=source, tools=()), prompter)

    def _grammar(self, prompt: StagePrompt, frame: Frame, messages: Sequence[Message], progress: Progress) -> Grammar:
        """The constraint on a tool's arguments, whose copied properties are held to the conversation."""
        stage = prompt.stage
        if stage.prompt not in self._grammars:
            tool = next(tool for tool in prompt.plan.tools if tool.name == prompt.plan.tool)
            self._grammars[stage.prompt] = compile_grammar(tool, frame, self._tokenizers.constraint)
        plain = self._grammars[stage.prompt]
        if not (stage.copied and progress.copied):
            return plain
        if stage.prompt not in self._copies:
            tokenizer = self._tokenizers.constraint
            self._copies[stage.prompt] = compile_copies(plain.tool, frame, tokenizer, stage.copied)
        copies = self._copies[stage.prompt]
        try:
            return copies.grammar(plain, conversation(messages)) if copies else plain
        except NotHeldError as error:
            progress.notes.append(f"copied properties of {plain.tool.name!r} are written freely: {error}")
            return plain

    def _no_prompt(self, stage: Stage, what: str) -> BundleError:
        return BundleError(
            str(self._bundle.root / stage.prompt),
            found=f"no {what}",
            expected=f"a prompt with {what}",
            fix="Export it again.",
        )


def _forced(plan: PromptPlan) -> int:
    """Tokens behind the prompt that the model does not decide."""
    return len(plan.frame.tokens) if plan.frame else 0
