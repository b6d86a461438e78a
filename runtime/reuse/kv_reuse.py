"""What an engine has to compute of a prompt: all but what is known from the bundle, or from earlier prompts.

Two snapshots are kept of each static prefix under one adapter: the prefix, mapped from the bundle or computed once, and
what the latest prompt had behind it, with what was written then. A further turn of a conversation continues the second;
another conversation begins at the first.

Under an activated adapter a prompt is the base's up to the invocation. So its stages share these snapshots, and what
the engine holds of the conversation, with the base and with each other; what is computed behind it is a branch that is
dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.engines.engine import Engine, Snapshot, StateEngine
from dualtune_edge.runtime.engines.kv_cache import SnapshotStore
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.runtime.reuse.prefix_states import PrefixStates
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.prompts.growing_text import shared_length


@dataclass(frozen=True)
class Held:
    """Of a prompt, the number of tokens that the engine holds, and of those that it held before.

    `forwards`: the runs of the model that made up the difference.
    """

    tokens: int
    reused: int
    forwards: int = 0


class KvReuse:
    """Keeps KV values for one engine."""

    def __init__(self, engine: Engine, bundle: Bundle, levers: Levers, budget: int) -> None:
        """`budget`: bytes of computed KV values kept in memory."""
        self._engine, self._levers, self._bundle = engine, levers, bundle
        self._states: PrefixStates | None = None
        if levers.states and isinstance(engine, StateEngine):
            self._states = PrefixStates(bundle, engine.kv_format)
        self._store = SnapshotStore(budget)
        self._mapped: dict[str, Snapshot | None] = {}  # stage's prompt → the bundle's state
        self._latest: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = {}  # (identity, prefix) → the latest tokens

    @property
    def nbytes(self) -> int:
        """Bytes of KV values kept in memory, without what the engine holds."""
        return self._store.nbytes

    def begin(
        self, stage: Stage, prefix: tuple[int, ...], tokens: tuple[int, ...], frame: tuple[int, ...] = ()
    ) -> Held:
        """Let the engine hold the beginning of a prompt, and put the stage's adapter in force.

        Of a plain adapter that is what is known. Of an activated one it is all that the base computes: what was not
        known of it is computed now.

        Args:
            stage: the prompt's.
            prefix: its static prefix.
            tokens: the prompt. The last token is never held, unless the adapter begins behind it.
            frame: tokens that are forced behind the prompt.

        Raises:
            BundleError: a state of the bundle has changed since it was opened.
            RequestError, EngineError, StoppedError: as for `Engine.forward`.

        """
        invocation = self._bundle.model.invocation(stage.adapter)
        if invocation is None:
            held = self._hold(stage, prefix, tokens[:-1])
            return Held(held, held)
        engine, given = self._engine, (*tokens, *frame)
        border = base_part(given, invocation)
        base = given[: min(border, len(given) - 1)]
        reused = self._hold(stage, prefix, base)
        if border == len(given):
            return Held(reused, reused)
        if rest := base[reused:]:
            engine.forward(rest)
        engine.switch(stage.adapter)
        return Held(border, reused, forwards=1 if rest else 0)

    def keep(self, stage: Stage, prefix: tuple[int, ...], tokens: tuple[int, ...]) -> None:
        """Keep what the engine holds, a prompt and what was written behind it, in place of what was kept before.

        Of an activated adapter's prompt that is what the base has computed.
        """
        engine = self._engine
        if not self._levers.reuse or not isinstance(engine, StateEngine):
            return
        if self._bundle.model.invocation(stage.adapter):
            engine.switch(None)
            tokens = engine.tokens
        start = len(prefix) if tokens[: len(prefix)] == prefix else 0
        key = (engine.identity, prefix)
        if self._kept(key, engine.tokens):
            return
        latest = engine.snapshot(start)
        if start and not self._prefix(stage, prefix):
            engine.rewind(start)
            self._store.put(engine.snapshot())
            engine.restore(latest)
        if key in self._latest:
            self._store.drop(engine.identity, self._latest.pop(key))
        if len(tokens) > start:
            self._store.put(latest)
            self._latest[key] = latest.tokens

    def note(self, stage: Stage, prefix: tuple[int, ...]) -> str | None:
        """Why the bundle has a state for this stage's prefix, and it was computed all the same."""
        state = self._bundle.state_of(stage)
        if state is None or not self._levers.states:
            return None
        if self._states is None:
            return f"{state} is not used: this engine's KV values cannot be written"
        reason = self._states.refusal(stage, prefix)
        return f"{state} is not used: it is for {reason}" if reason else None

    def _hold(self, stage: Stage, prefix: tuple[int, ...], wanted: tuple[int, ...]) -> int:
        """Let the engine hold what is known of `wanted` under the adapter of its prefix; the number of tokens."""
        engine, adapter = self._engine, self._bundle.model.prefix_adapter(stage.adapter)
        if not self._levers.reuse:
            engine.use(adapter)
        elif engine.adapter is not None and adapter is None:
            engine.switch(None)
        elif engine.adapter != adapter:
            engine.use(adapter)
        held = shared_length(engine.tokens, wanted)
        key = (engine.identity, prefix)
        first, latest = self._prefix(stage, prefix), self._kept(key, self._latest.get(key))
        if latest and latest.start and not first:
            latest = None  # what it stands behind was dropped
        best = latest if latest and shared_length(latest.tokens, wanted) > len(prefix) else first
        if best and shared_length(best.tokens, wanted) > held:
            if first and best.start > held:
                engine.restore(first)
            engine.restore(best)
            held = shared_length(best.tokens, wanted)
        engine.rewind(held)
        return held

    def _prefix(self, stage: Stage, prefix: tuple[int, ...]) -> Snapshot | None:
        """The state of the stage's prefix, from the bundle or from memory; the engine is under its adapter."""
        if stage.prompt not in self._mapped:
            self._mapped[stage.prompt] = self._states.snapshot(stage, prefix) if self._states else None
        if mapped := self._mapped[stage.prompt]:
            return mapped
        kept = self._store.get(self._engine.identity, prefix)
        return kept if kept and kept.start == 0 else None

    def _kept(self, key: tuple[str, tuple[int, ...]], tokens: tuple[int, ...] | None) -> Snapshot | None:
        """What is kept of the latest prompt of this identity and prefix, if it is these tokens."""
        return self._store.get(key[0], tokens) if tokens is not None and self._latest.get(key) == tokens else None
