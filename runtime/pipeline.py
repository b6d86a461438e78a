"""Toolset → tool → arguments: a conversation in, one tool call out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tokenizers import Tokenizer

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.folder import Bundle, Verify, open_bundle
from dualtune_edge.runtime.decode.arguments import Arguments, write_arguments
from dualtune_edge.runtime.decode.choice import Choice, choose_behind
from dualtune_edge.runtime.decode.conversation import notes, read_messages
from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.runtime.decode.kv_reuse import KvReuse
from dualtune_edge.runtime.decode.stopping import Stop
from dualtune_edge.runtime.decode.text import write_text
from dualtune_edge.runtime.decode.tokenizers_ahead import TokenizersAhead
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, PlacedEngine, open_engine
from dualtune_edge.runtime.grammar.grammar import Grammar, compile_grammar
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.result import Alternative, CallResult, Placement, Timings, Tokens, VariantChoice
from dualtune_edge.runtime.variants import Opened, open_best, ways
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.manifest import Stage, ToolsetEntry
from dualtune_edge.toolkit.errors import BundleError, RequestError, StoppedError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.prompter import Frame, Prompter, PromptPlan
from dualtune_edge.toolkit.validation import listing, nearest

_CLOSING: Final = 5.0  # seconds that the end of an interrupted forward may take
_ANSWER: Final = Stage(prompt="answer")  # the base's text, which no file of the bundle describes


@dataclass(frozen=True)
class _Prompt:
    """A stage's prompt, ready to render."""

    stage: Stage
    plan: PromptPlan
    prompter: Prompter


@dataclass
class _Count:
    """What one call has used so far."""

    start: float = field(default_factory=time.perf_counter)
    prompt: int = 0
    reused: int = 0
    forced: int = 0
    decided: int = 0
    drafted: int = 0
    accepted: int = 0
    forwards: int = 0
    notes: list[str] = field(default_factory=list)
    toolset: str | None = None  # what was chosen
    tool: str | None = None
    begun: int = 0  # tokens of the latest prompt
    date: datetime | None = None  # of the request; None: today

    def reached(self, written: str) -> str:
        """How far the call came; `written`: what follows the latest prompt."""
        if self.tool is None:
            return f"after choosing the toolset {self.toolset}" if self.toolset else "before anything was chosen"
        return f"after choosing {self.toolset}.{self.tool} and writing {written[:200]!r}"

    def add(self, answer: Choice | Arguments) -> None:
        self.forced += answer.forced
        self.decided += answer.decided
        self.forwards += answer.forwards

    def tokens(self) -> Tokens:
        names = ("prompt", "reused", "forced", "decided", "drafted", "accepted", "forwards")
        return Tokens(**{name: getattr(self, name) for name in names})

    def elapsed(self) -> float:
        """Milliseconds since the call began."""
        return round(1e3 * (time.perf_counter() - self.start), 3)


class Agent:
    """Answers conversations with tool calls, one at a time: calls of other threads wait.

        with Agent.open("bundle") as agent:
            print(agent.call("what changed since yesterday?"))

    The tool lists are not read at all where the bundle brings their KV states. The latest prompt's KV state of each
    stage is kept: what the next prompt has in common with it is not computed again.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        levers: Levers | None = None,
        *,
        variant: VariantChoice | None = None,
        tokenizers: TokenizersAhead | None = None,
    ) -> None:
        """`engine` was opened on `bundle.model`; leaving the `with` block closes it. `levers`: by default all."""
        self._tokenizers = tokenizers or TokenizersAhead(bundle)
        self._calling = threading.Lock()  # one engine: calls of several threads wait for each other
        self._closed = threading.Event()
        self._variant = variant
        self._levers = levers or Levers()
        self.bundle, self._engine = bundle, engine
        self._prompts: dict[str, _Prompt] = {}
        self._grammars: dict[str, Grammar] = {}
        self._reuse = KvReuse(engine, bundle, self._levers, limits.SNAPSHOT_BYTES)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        engine: EngineKind = "ort",
        settings: SessionSettings | None = None,
        verify: Verify = "once",
        levers: Levers | None = None,
    ) -> Agent:
        """Open a bundle.

        Args:
            path: its folder.
            engine: the library that runs it: "ort" (onnxruntime) or "genai" (onnxruntime-genai).
            settings: how the primary model's sessions run; by default the bundle's variants are ranked, and what the
                best one's profile means for this machine counts.
            verify: which files are hashed first: see `open_bundle`.
            levers: what may make the answers quick; by default all of it.

        Raises:
            BundleError: no bundle, or a damaged one.
            ProfileError: the bundle's profile is a file that is not here.
            EngineError: the engine cannot open it.

        """
        bundle = open_bundle(path, verify=verify)
        ahead = TokenizersAhead(bundle)
        if settings:
            return cls(bundle, open_engine(bundle.model, settings, engine), levers, tokenizers=ahead)
        return cls.of(open_best(ways(bundle), engine), levers, ahead)

    @classmethod
    def of(cls, opened: Opened, levers: Levers | None = None, tokenizers: TokenizersAhead | None = None) -> Agent:
        """An agent on what `variants.open_best` opened; `tokenizers` of the same bundle may have been begun before."""
        return cls(opened.bundle, opened.engine, levers, variant=opened.choice, tokenizers=tokenizers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the model. A call that runs ends with a `StoppedError`, within a fraction of a second."""
        self._closed.set()
        self._engine.interrupt()
        # An answer that nobody takes to its end holds the lock, and computes nothing.
        free = self._calling.acquire(timeout=_CLOSING)
        self._tokenizers.close()
        self._engine.close()
        if free:
            self._calling.release()

    @property
    def tokenizer(self) -> Tokenizer:
        """The base's tokenizer."""
        return self._tokenizers.base

    @property
    def context_length(self) -> int:
        """The most tokens that a prompt and its answer may have together."""
        return self._engine.context_length

    def call(
        self,
        request: str | Sequence[Message | Mapping[str, Any]],
        *,
        toolset: str | None = None,
        offered: Mapping[str, Collection[str]] | None = None,
        required: bool = False,
        date: datetime | None = None,
        deadline: float | None = None,
        cancel: threading.Event | None = None,
    ) -> CallResult:
        """The tool call that the conversation needs next, or that it needs none.

        Args:
            request: what the user says, or the conversation so far as OpenAI-style messages: earlier calls and the
                tools' results are messages too.
            toolset: the toolset to choose from; by default the base model chooses it.
            offered: the toolsets and the names of their tools that can be called now; by default all. The others keep
                their place in the prompt and have no probability.
            required: whether a tool has to be called: then calling none has no probability either.
            date: of the request, for chat templates that write one; by default now, by the clock of this machine.
            deadline: the most seconds for the call, waiting for other calls included.
            cancel: ends the call when it is set, from any thread and within a tenth of a second.

        Raises:
            RequestError: malformed messages, an unknown toolset, a conversation longer than the context, or arguments
                that do not end or fit.
            TemplateError: a chat template cannot render these messages.
            EngineError: the model fails.
            StoppedError: the call was cancelled, or its deadline is over; it says what was chosen by then.

        """
        messages, offered = read_messages(request), self._offered(toolset, offered)
        count = _Count(date=date)
        count.notes += notes(request, messages, self._tool_names)
        with self._turn(Stop.after(deadline, cancel), count):
            return self._called(messages, offered, count, required=required)

    def answer(
        self,
        request: str | Sequence[Message | Mapping[str, Any]],
        *,
        temperature: float = 0.0,
        max_tokens: int = 1024,
        seed: int = 0,
        date: datetime | None = None,
        deadline: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[str, None, None]:
        """The base model's text behind a conversation, piece by piece, without tools.

        The agent is busy until the last piece is taken or the iterator is closed.

        Args:
            request: as for `call`.
            temperature: divides the logits; 0 takes the most probable token.
            max_tokens: the most tokens of the text.
            seed: of the samples.
            date: as for `call`.
            deadline: as for `call`; the time between the pieces counts.
            cancel: as for `call`.

        Raises:
            RequestError: malformed messages, or a conversation longer than the context.
            TemplateError: the base's chat template cannot render these messages.
            EngineError: the model fails.
            StoppedError: it was cancelled, or its deadline is over.

        """
        messages = read_messages(request)
        with self._turn(Stop.after(deadline, cancel), _Count()):
            prompter = self._answer_prompter
            tokens = prompter.tokens(messages, date)
            held = self._reuse.begin(_ANSWER, (), tokens)
            end = self.bundle.manifest.base.end_of_turn
            try:
                yield from write_text(
                    self._engine,
                    tokens[held:],
                    self.tokenizer,
                    end=end,
                    max_tokens=max_tokens,
                    temperature=temperature,
                    seed=seed,
                )
            finally:
                if self._engine.tokens[: len(tokens)] == tokens:
                    self._reuse.keep(_ANSWER, (), tokens)

    @contextlib.contextmanager
    def _turn(self, stop: Stop, count: _Count) -> Iterator[None]:
        """The engine for one call. A call that is stopped says why, and how far it came."""
        try:
            with stop.watching(self._engine, self._calling):
                yield
        except StoppedError as error:
            reason = "the agent was closed" if self._closed.is_set() else stop.reason
            written = self.tokenizer.decode(self._engine.tokens[count.begun :]) if count.tool else ""
            raise StoppedError(
                error.where if reason is None else "call",
                found=f"{reason or error.found}, {count.reached(written)}",
                expected="an answer by then",
                fix="Allow it more time, or ask for less.",
            ) from None

    def _called(
        self, messages: Sequence[Message], offered: Mapping[str, Collection[str]], count: _Count, *, required: bool
    ) -> CallResult:
        routed = self._routed(messages, offered, count)
        entry = self.bundle.toolset(routed.winner if routed else next(iter(offered)))
        count.toolset = entry.toolset.name
        after_toolset = count.elapsed()
        among = (*offered[entry.toolset.name], *(() if required else (self.bundle.manifest.no_tool,)))
        choice = self._choose(entry.selection, messages, among, count)
        after_selection = count.elapsed()
        called = choice.winner != self.bundle.manifest.no_tool
        count.tool = choice.winner if called else None
        arguments = self._arguments(entry, choice.winner, messages, count) if called else None
        total = count.elapsed()
        return CallResult(
            toolset=entry.toolset.name,
            tool=choice.winner if called else None,
            arguments=arguments,
            outcome="call" if called else "no_tool",
            probability=choice.probability,
            alternatives=tuple(
                Alternative(tool=each.name, probability=each.probability) for each in choice.alternatives
            ),
            timings_ms=Timings(
                toolset=after_toolset,
                selection=round(after_selection - after_toolset, 3),
                arguments=round(total - after_selection, 3),
                total=total,
            ),
            tokens=count.tokens(),
            notes=tuple(count.notes),
            placement=self._engine.placement if isinstance(self._engine, PlacedEngine) else Placement(),
            variant=self._variant,
            toolset_probability=routed.probability if routed else None,
        )

    def _routed(
        self, messages: Sequence[Message], offered: Mapping[str, Collection[str]], count: _Count
    ) -> Choice | None:
        """The base model's choice of a toolset; None where there is none to make."""
        stage = self.bundle.manifest.toolset_choice
        return None if len(offered) == 1 or stage is None else self._choose(stage, messages, offered, count)

    def _offered(
        self, toolset: str | None, offered: Mapping[str, Collection[str]] | None
    ) -> Mapping[str, Collection[str]]:
        """The toolsets and tools to choose from.

        Raises:
            RequestError: one is not in the bundle, or nothing is offered.

        """
        toolsets = [entry.toolset for entry in self.bundle.manifest.toolsets]
        known = {entry.name: frozenset(tool.name for tool in entry.tools) for entry in toolsets}
        offered = known if offered is None else offered
        if toolset is not None:
            _refuse_unknown("toolset", [toolset], offered)
            offered = {toolset: offered[toolset]}
        _refuse_unknown("offered", offered, known)
        for name, tools in offered.items():
            _refuse_unknown(f"offered, {name}", tools, known[name])
        if not offered:
            raise RequestError("offered", found="no toolset", expected=listing(known), fix="Offer at least one.")
        return offered

    @cached_property
    def _tool_names(self) -> frozenset[str]:
        """All names that a conversation may have called."""
        manifest = self.bundle.manifest
        return frozenset(tool.name for entry in manifest.toolsets for tool in entry.toolset.tools) | {manifest.no_tool}

    @cached_property
    def _answer_prompter(self) -> Prompter:
        own, tokenizer = self.bundle.chat_template, self.bundle.manifest.tokenizer
        source = own or (resources.files("dualtune_edge.toolkit") / "templates" / "answer.jinja").read_text("utf-8")
        where = "the base's chat template" if own else "the built-in template for answers"
        return Prompter(ChatTemplate(source, where=where, bos=tokenizer.bos, eos=tokenizer.eos), self.tokenizer, ())

    def _choose(self, stage: Stage, messages: Sequence[Message], among: Collection[str], count: _Count) -> Choice:
        """The most probable completion of those named in `among`."""
        prompt = self._prompt(stage)
        if not prompt.plan.completions:
            raise self._no_prompt(stage, "completions")
        tokens, reused = self._begin(prompt, messages, count)
        levers = self._levers
        completions = {name: answer for name, answer in prompt.plan.completions.items() if name in among}
        choice = choose_behind(self._engine, tokens[reused:], completions, ride=levers.forced, ahead=levers.lookahead)
        self._reuse.keep(stage, prompt.plan.prefix, tokens)
        count.add(choice)
        return choice

    def _arguments(self, entry: ToolsetEntry, tool: str, messages: Sequence[Message], count: _Count) -> dict[str, Any]:
        """Those of the chosen tool; a tool that takes none has no stage."""
        stage = entry.arguments.get(tool)
        if stage is None:
            return {}
        prompt = self._prompt(stage)
        frame = prompt.plan.frame
        if frame is None:
            raise self._no_prompt(stage, "frame")
        tokens, reused = self._begin(prompt, messages, count)
        pending = [*tokens[reused:], *frame.tokens]
        grammar = self._grammar(prompt, frame)
        drafter = Drafter.of(messages, frame, grammar.tool) if self._levers.drafts else None
        written = write_arguments(self._engine, pending, grammar, drafter, ride=self._levers.forced)
        if written.forwards:  # without one the engine lacks the prompt
            self._reuse.keep(stage, prompt.plan.prefix, tokens)
        count.add(written)
        count.forced += len(frame.tokens)
        count.drafted += written.drafted
        count.accepted += written.accepted
        return written.value

    def _begin(self, prompt: _Prompt, messages: Sequence[Message], count: _Count) -> tuple[tuple[int, ...], int]:
        """The prompt's tokens, and how many of them the engine holds now; the last is never among these."""
        tokens, prefix = prompt.prompter.tokens(messages, count.date), prompt.plan.prefix
        held = self._reuse.begin(prompt.stage, prefix, tokens)
        count.prompt += len(tokens)
        count.begun = len(tokens)
        count.reused += held
        if note := self._reuse.note(prompt.stage, prefix):
            count.notes.append(note)
        return tokens, held

    def _prompt(self, stage: Stage) -> _Prompt:
        if stage.prompt not in self._prompts:
            plan, tokenizer = self.bundle.plan(stage), self.bundle.manifest.tokenizer
            template = ChatTemplate(plan.template, where=stage.prompt, bos=tokenizer.bos, eos=tokenizer.eos)
            prompter = Prompter(template, self._tokenizers.base, plan.tools, plan.tool)
            self._prompts[stage.prompt] = _Prompt(stage, plan, prompter)
        return self._prompts[stage.prompt]

    def _grammar(self, prompt: _Prompt, frame: Frame) -> Grammar:
        if prompt.stage.prompt not in self._grammars:
            tool = next(tool for tool in prompt.plan.tools if tool.name == prompt.plan.tool)
            self._grammars[prompt.stage.prompt] = compile_grammar(tool, frame, self._tokenizers.constraint)
        return self._grammars[prompt.stage.prompt]

    def _no_prompt(self, stage: Stage, what: str) -> BundleError:
        return BundleError(
            str(self.bundle.root / stage.prompt),
            found=f"no {what}",
            expected=f"a prompt with {what}",
            fix="Export it anew.",
        )


def _refuse_unknown(where: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            fix = nearest(name, known)
            raise RequestError(where, found=f"the unknown name {name!r}", expected=listing(known), fix=fix)
