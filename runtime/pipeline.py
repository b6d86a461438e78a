"""Toolset → tool → arguments: a conversation in, one tool call out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, cast

from tokenizers import Tokenizer

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import Verify, open_bundle
from dualtune_edge.runtime.call import Question, Shortening, decide, decide_shortened
from dualtune_edge.runtime.decode.conversation import (
    notes,
    read_messages,
    read_offered,
    refuse_options,
    refuse_sampling,
)
from dualtune_edge.runtime.decode.overflow import ROOM, OnOverflow
from dualtune_edge.runtime.decode.stages import Progress, Stages
from dualtune_edge.runtime.decode.stopping import Stop, stopped
from dualtune_edge.runtime.decode.tokenizers_ahead import TokenizersAhead
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, PlacedEngine, open_engine
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.result import AnswerTokens, CallResult, Placement, VariantChoice
from dualtune_edge.runtime.trust.policy import Trust
from dualtune_edge.runtime.variants import Opened, open_best, ways
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import EdgeError, EngineError, ProfileError, Reached, StoppedError
from dualtune_edge.toolkit.prompts.messages import Message

Request: TypeAlias = str | Sequence[Message | Mapping[str, Any]]
_LOOK: Final = 0.02  # seconds between two looks at whether a closed agent computes still


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
        copied: bool = True,
    ) -> None:
        """`engine` was opened on `bundle.model`; leaving the `with` block closes it. `levers`: by default all.

        `copied`: as for `open`.
        """
        self._tokenizers = tokenizers or TokenizersAhead(bundle)
        self._calling = threading.Lock()  # one engine: calls of several threads wait for each other
        self._closed = threading.Event()
        self._paused = threading.Event()  # while a piece of an answer is with its reader
        self._variant, self._copied = variant, copied
        self.bundle, self._engine = bundle, engine
        self._stages = Stages(bundle, engine, levers or Levers(), self._tokenizers)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        engine: EngineKind = "ort",
        profile: str | Path | None = None,
        threads: int | None = None,
        settings: SessionSettings | None = None,
        verify: Verify = "once",
        levers: Levers | None = None,
        trust: Trust | None = None,
        copied: bool = True,
    ) -> Agent:
        """Open a bundle.

        Args:
            path: its folder.
            engine: the library that runs it: "ort" (onnxruntime) or "genai" (onnxruntime-genai).
            profile: a profile's name or .toml file; by default the bundle's variants are ranked, and what the best
                one's profile means for this machine counts.
            threads: the number of threads; by default the profile's.
            settings: how the primary model's sessions run, in place of a profile and threads.
            verify: which files are hashed first: see `open_bundle`.
            levers: what may make the answers quick; by default all of it.
            trust: whose signature the bundle must have: a policy, or its file; by default $DUALTUNE_EDGE_TRUST.
            copied: whether the texts of the bundle's copied properties are held to the conversation.

        Raises:
            BundleError: no bundle, or a damaged one.
            TrustError: the bundle is not signed as the policy asks.
            ProfileError: no such profile, or the bundle's is a file that is not here; or settings beside a profile.
            EngineError: the engine cannot open it.

        """
        if settings and (profile is not None or threads is not None):
            raise ProfileError(
                "settings", found="a profile or threads beside it", expected="one of them", fix="Leave `settings` out."
            )
        bundle = open_bundle(path, verify=verify, trust=trust)
        ahead = TokenizersAhead(bundle)
        if settings:
            return cls(bundle, open_engine(bundle.model, settings, engine), levers, tokenizers=ahead, copied=copied)
        return cls.of(
            open_best(ways(bundle, profile=None if profile is None else str(profile), threads=threads), engine),
            levers,
            ahead,
            copied=copied,
        )

    @classmethod
    def of(
        cls,
        opened: Opened,
        levers: Levers | None = None,
        tokenizers: TokenizersAhead | None = None,
        *,
        copied: bool = True,
    ) -> Agent:
        """An agent on what `variants.open_best` opened; `tokenizers` of the same bundle may have been begun before."""
        return cls(opened.bundle, opened.engine, levers, variant=opened.choice, tokenizers=tokenizers, copied=copied)

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
        free = self._calling.acquire(blocking=False)
        while not free and not self._paused.is_set():  # an answer that nobody takes to its end computes nothing
            free = self._calling.acquire(timeout=_LOOK)
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

    @property
    def kept_bytes(self) -> int:
        """Bytes of KV values that are kept for later prompts, besides those of the latest one."""
        return self._stages.kept_bytes

    def count_tokens(self, request: Request, *, toolset: str | None = None) -> int:
        """Tokens of the longest prompt that a call on this conversation may need, the tool lists included.

        A call has `context_length` tokens for a prompt and its answer together.

        Args:
            request: as for `call`.
            toolset: the toolset that is called; by default any.

        Raises:
            RequestError: malformed messages, or an unknown toolset.
            TemplateError: a chat template cannot render these messages.

        """
        messages, offered = read_messages(request), read_offered(self.bundle.manifest, toolset, None)
        entries = [self.bundle.toolset(name) for name in offered]
        stages = [stage for entry in entries for stage in (entry.selection, *entry.arguments.values())]
        if self.bundle.manifest.toolset_choice and len(offered) > 1:
            stages.append(self.bundle.manifest.toolset_choice)
        with self._turn(Stop.after(None, None, self._closed)):
            return self._stages.longest(stages, messages)

    def call(
        self,
        request: Request,
        *,
        toolset: str | None = None,
        offered: Mapping[str, Collection[str]] | None = None,
        required: bool = False,
        date: datetime | None = None,
        min_probability: float = 0.0,
        max_argument_tokens: int = limits.ARGUMENT_TOKENS,
        deadline: float | None = None,
        cancel: threading.Event | None = None,
        on_overflow: OnOverflow | None = None,
        copied: bool | None = None,
    ) -> CallResult:
        """The tool call that the conversation needs next, or that it needs none.

        Args:
            request: what the user says, or the conversation so far as OpenAI-style messages: earlier calls and the
                tools' results are messages too.
            toolset: the toolset to choose from; by default the bundle chooses it, by its adapter for that or the base.
            offered: the toolsets and the names of their tools that can be called now; by default all. The others keep
                their place in the prompt and have no probability.
            required: whether a tool has to be called: then calling none has no probability either.
            date: of the request, for chat templates that write one; by default now, by the clock of this machine.
            min_probability: where the probability of the whole answer (of toolset, tool and arguments multiplied) is
                below it, the outcome is `unsure`. Arguments are not written for a choice that is below it.
            max_argument_tokens: the most tokens of the arguments.
            deadline: the most seconds from now, waiting for other calls included.
            cancel: ends the call when it is set, from any thread.
            on_overflow: is given a conversation that is too long for the context, and returns a shorter one, as
                `shorten_results` does. A note of the result says so. By default there is an error.
            copied: as for `open`; by default what it says.

        Raises:
            RequestError: malformed messages, an unknown toolset, a conversation longer than the context, or arguments
                that do not end or fit.
            TemplateError: a chat template cannot render these messages.
            EngineError: the model fails.
            StoppedError: the call was cancelled, its deadline is over, or the agent was closed. The attribute `reached`
                of each error has what was chosen and written by then.

        """
        messages, among = read_messages(request), read_offered(self.bundle.manifest, toolset, offered)
        refuse_options(
            min_probability=min_probability, max_argument_tokens=max_argument_tokens, date=date, on_overflow=on_overflow
        )
        question = Question(messages, among, required, min_probability)
        most, copied = min(max_argument_tokens, limits.ARGUMENT_TOKENS), self._copied if copied is None else copied
        progress = Progress(most=most, date=date, copied=copied)
        progress.notes += notes(request, messages, self._tool_names)
        with self._turn(Stop.after(deadline, cancel, self._closed), progress):
            if on_overflow is None:
                result = decide(self.bundle, self._stages, question, progress)
            else:
                shortening = Shortening(on_overflow, self.context_length - ROOM, self.tokenizer)
                result = decide_shortened(self.bundle, self._stages, question, progress, shortening)
            placement = self._engine.placement if isinstance(self._engine, PlacedEngine) else Placement()
            return result.model_copy(update={"placement": placement, "variant": self._variant})

    def answer(
        self,
        request: Request,
        *,
        temperature: float = 0.0,
        max_tokens: int = 1024,
        seed: int = 0,
        date: datetime | None = None,
        deadline: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[str, None, AnswerTokens]:
        """The text behind a conversation, piece by piece, without tools: by the bundle's adapter for it, or the base.

        The agent is busy until the last piece is taken or the iterator is closed. The generator's return value has the
        tokens of the text.

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
            TemplateError: the chat template of the answer cannot render these messages.
            EngineError: the model fails.
            StoppedError: it was cancelled, its deadline is over, or the agent was closed.

        """
        messages = read_messages(request)
        refuse_sampling(temperature=temperature, max_tokens=max_tokens, seed=seed, date=date)
        with self._turn(Stop.after(deadline, cancel, self._closed)):
            pieces = self._stages.text(messages, max_tokens=max_tokens, temperature=temperature, seed=seed, date=date)
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    return cast("AnswerTokens", end.value)
                self._paused.set()
                try:
                    yield piece
                finally:
                    self._paused.clear()

    @contextlib.contextmanager
    def _turn(self, stop: Stop, progress: Progress | None = None) -> Iterator[None]:
        """The engine for one call. An error says how far the call came, and that of one that is stopped why."""
        reached = Reached()
        if self._closed.is_set():
            raise EngineError("agent", found="a closed agent", expected="an open one", fix="Open it again.")
        try:
            with stop.watching(self._engine, self._calling):
                yield
        except EdgeError as error:
            if progress:
                written = error.reached.arguments if error.reached else None
                reached = replace(progress.reached, arguments=written)
            if isinstance(error, StoppedError):
                error = stopped(error, stop.reason, reached)
            error.reached = reached
            raise error from None

    @cached_property
    def _tool_names(self) -> frozenset[str]:
        """All names that a conversation may have called."""
        manifest = self.bundle.manifest
        return frozenset(tool.name for entry in manifest.toolsets for tool in entry.toolset.tools) | {manifest.no_tool}
