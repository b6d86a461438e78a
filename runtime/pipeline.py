"""Toolset → tool → arguments: a conversation in, one tool call out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llguidance import LLTokenizer

from dualtune_edge.profiles.catalog import load
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.resolve import Resolution, resolve
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.arguments import Arguments, Grammar, compile_grammar, open_tokenizer, write_arguments
from dualtune_edge.runtime.bundle import Bundle, open_bundle
from dualtune_edge.runtime.choice import Choice, choose
from dualtune_edge.runtime.conversation import read_messages
from dualtune_edge.runtime.engine import Engine, EngineKind, open_engine
from dualtune_edge.runtime.kv_cache import SnapshotStore
from dualtune_edge.runtime.result import Alternative, CallResult, Timings, Tokens
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.chat_template import ChatTemplate
from dualtune_edge.toolkit.errors import BundleError, RequestError
from dualtune_edge.toolkit.manifest import Stage, ToolsetEntry
from dualtune_edge.toolkit.messages import Message
from dualtune_edge.toolkit.prompts import Frame, Prompter, PromptPlan, common_prefix
from dualtune_edge.toolkit.validation import listing, nearest


@dataclass(frozen=True)
class _Prompt:
    """A stage's prompt, ready to render. `key` names it."""

    key: str
    adapter: str | None
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

    def add(self, answer: Choice | Arguments) -> None:
        self.forced += answer.forced
        self.decided += answer.decided

    def tokens(self) -> Tokens:
        return Tokens(prompt=self.prompt, reused=self.reused, forced=self.forced, decided=self.decided)

    def elapsed(self) -> float:
        """Milliseconds since the call began."""
        return round(1e3 * (time.perf_counter() - self.start), 3)


class Agent:
    """Answers conversations with tool calls, one at a time.

        with Agent.open("bundle") as agent:
            print(agent.call("what changed since yesterday?"))

    The latest prompt's KV state of each stage is kept: what the next prompt has in common with it, the tool list at
    least, is not computed again.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        """`engine` was opened on `bundle.model`; leaving the `with` block closes it."""
        self.bundle, self._engine = bundle, engine
        self._prompts: dict[str, _Prompt] = {}
        self._grammars: dict[str, Grammar] = {}
        self._store = SnapshotStore(limits.SNAPSHOT_BYTES)
        self._latest: dict[str, tuple[str, tuple[int, ...]]] = {}  # stage → (identity, tokens) of what is kept for it

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        engine: EngineKind = "ort",
        settings: SessionSettings | None = None,
        verify: bool = True,
    ) -> Agent:
        """Open a bundle.

        Args:
            path: its folder.
            engine: the library that runs it: "ort" (onnxruntime) or "genai" (onnxruntime-genai).
            settings: how sessions run; by default what the bundle's profile means for this machine.
            verify: whether to hash every file first.

        Raises:
            BundleError: no bundle, or a damaged one.
            ProfileError: the bundle's profile is a file that is not here.
            EngineError: the engine cannot open it.

        """
        bundle = open_bundle(path, verify=verify)
        return cls(bundle, open_engine(bundle.model, settings or settings_for(bundle).settings, engine))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the model."""
        self._engine.close()

    def call(self, request: str | Sequence[Message | Mapping[str, Any]], *, toolset: str | None = None) -> CallResult:
        """The tool call that the conversation needs next, or that it needs none.

        Args:
            request: what the user says, or the conversation so far as OpenAI-style messages: earlier calls and the
                tools' results are messages too.
            toolset: the toolset to choose from; by default the base model chooses it.

        Raises:
            RequestError: malformed messages, an unknown toolset, a conversation longer than the context, or arguments
                that do not end or fit.
            TemplateError: a chat template cannot render these messages.
            EngineError: the model fails.

        """
        messages, count = read_messages(request), _Count()
        entry = self._toolset(messages, toolset, count)
        after_toolset = count.elapsed()
        choice = self._choose(entry.selection, messages, count)
        after_selection = count.elapsed()
        called = choice.winner != self.bundle.manifest.no_tool
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
        )

    def _toolset(self, messages: Sequence[Message], name: str | None, count: _Count) -> ToolsetEntry:
        manifest = self.bundle.manifest
        if name is None:
            if manifest.toolset_choice is None:
                return manifest.toolsets[0]
            name = self._choose(manifest.toolset_choice, messages, count).winner
        known = {entry.toolset.name: entry for entry in manifest.toolsets}
        if name not in known:
            fix = nearest(name, known)
            raise RequestError("toolset", found=f"the unknown name {name!r}", expected=listing(known), fix=fix)
        return known[name]

    def _choose(self, stage: Stage, messages: Sequence[Message], count: _Count) -> Choice:
        prompt = self._prompt(stage)
        if not prompt.plan.completions:
            raise self._no_prompt(stage, "completions")
        tokens, reused = self._begin(prompt, messages, count)
        choice = choose(self._engine, self._engine.forward(tokens[reused:]), prompt.plan.completions)
        self._keep(prompt, tokens)
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
        written = write_arguments(self._engine, [*tokens[reused:], *frame.tokens], self._grammar(prompt, frame))
        self._keep(prompt, tokens)
        count.add(written)
        count.forced += len(frame.tokens)
        return written.value

    def _begin(self, prompt: _Prompt, messages: Sequence[Message], count: _Count) -> tuple[tuple[int, ...], int]:
        """The prompt's tokens, and how many of them the engine holds now; the last is never among these."""
        tokens = prompt.prompter.tokens(messages)
        engine = self._engine
        if engine.adapter != prompt.adapter:
            engine.use(prompt.adapter)
        held = self._shared(engine.tokens, tokens)
        kept = self._store.get(*self._latest[prompt.key]) if prompt.key in self._latest else None
        if kept and kept.identity == engine.identity and self._shared(kept.tokens, tokens) > held:
            engine.restore(kept)
            held = self._shared(kept.tokens, tokens)
        engine.rewind(held)
        count.prompt += len(tokens)
        count.reused += held
        return tokens, held

    def _keep(self, prompt: _Prompt, tokens: tuple[int, ...]) -> None:
        """Keep the KV state of a stage's prompt in place of its earlier one."""
        self._engine.rewind(len(tokens))
        snapshot = self._engine.snapshot()
        if snapshot.state is None:
            return  # an engine that would compute it again
        if prompt.key in self._latest:
            self._store.drop(*self._latest[prompt.key])
        self._store.put(snapshot)
        self._latest[prompt.key] = (snapshot.identity, snapshot.tokens)

    @staticmethod
    def _shared(held: tuple[int, ...], tokens: tuple[int, ...]) -> int:
        """Tokens in common at the beginning, without the last, whose logits are needed."""
        return len(common_prefix([held, tokens[:-1]]))

    def _prompt(self, stage: Stage) -> _Prompt:
        if stage.prompt not in self._prompts:
            plan, tokenizer = self.bundle.plan(stage), self.bundle.manifest.tokenizer
            template = ChatTemplate(plan.template, where=stage.prompt, bos=tokenizer.bos, eos=tokenizer.eos)
            prompter = Prompter(template, self.bundle.tokenizer, plan.tools, plan.tool)
            self._prompts[stage.prompt] = _Prompt(stage.prompt, stage.adapter, plan, prompter)
        return self._prompts[stage.prompt]

    def _grammar(self, prompt: _Prompt, frame: Frame) -> Grammar:
        if prompt.key not in self._grammars:
            tool = next(tool for tool in prompt.plan.tools if tool.name == prompt.plan.tool)
            self._grammars[prompt.key] = compile_grammar(tool, frame, self._constraint_tokenizer)
        return self._grammars[prompt.key]

    @cached_property
    def _constraint_tokenizer(self) -> LLTokenizer:
        base = self.bundle.manifest.base
        return open_tokenizer(self.bundle.tokenizer_json, vocab_size=base.vocab_size, end_of_turn=base.end_of_turn)

    def _no_prompt(self, stage: Stage, what: str) -> BundleError:
        return BundleError(
            str(self.bundle.root / stage.prompt),
            found=f"no {what}",
            expected=f"a prompt with {what}",
            fix="Export it anew.",
        )


def settings_for(bundle: Bundle, *, profile: str | None = None, threads: int | None = None) -> Resolution:
    """How a bundle's sessions should run here: `profile` (a name or a .toml file) beats the bundle's own.

    Raises:
        ProfileError: no such profile, or none for this machine.

    """
    name = profile or bundle.manifest.profile
    return resolve(load(name) if name else None, detect(), threads=threads)
