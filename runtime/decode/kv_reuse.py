"""What an engine has to compute of a prompt: all but what is known from the bundle, or from earlier prompts.

Two snapshots are kept a stage: its static prefix, mapped from the bundle or computed once, and what the latest
prompt had behind it, with what was written then. A further turn of a conversation continues the second; another
conversation begins at the first.
"""

from __future__ import annotations

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.decode.prefix_states import PrefixStates
from dualtune_edge.runtime.engines.engine import Engine, Snapshot, StateEngine
from dualtune_edge.runtime.engines.kv_cache import SnapshotStore
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.prompts.prompter import common_prefix


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
        self._latest: dict[str, tuple[str, tuple[int, ...]]] = {}  # stage's prompt → key in the store

    def begin(self, stage: Stage, prefix: tuple[int, ...], tokens: tuple[int, ...]) -> int:
        """Let the engine hold what is known of a prompt's beginning; returns how many tokens: the last never is.

        Raises:
            BundleError: a state of the bundle has changed since it was opened.

        """
        engine = self._engine
        if engine.adapter != stage.adapter or not self._levers.reuse:
            engine.use(stage.adapter)
        held = _shared(engine.tokens, tokens)
        first, latest = self._prefix(stage, prefix), self._kept(stage)
        if latest and latest.start and not first:
            latest = None  # what it stands behind was dropped
        wanted = latest if latest and _shared(latest.tokens, tokens) > len(prefix) else first
        if wanted and _shared(wanted.tokens, tokens) > held:
            if first and wanted.start > held:
                engine.restore(first)
            engine.restore(wanted)
            held = _shared(wanted.tokens, tokens)
        engine.rewind(held)
        return held

    def keep(self, stage: Stage, prefix: tuple[int, ...], tokens: tuple[int, ...]) -> None:
        """Keep what the engine holds, a prompt and what was written behind it, in place of the stage's earlier one."""
        engine = self._engine
        if not self._levers.reuse or not isinstance(engine, StateEngine):
            return
        start = len(prefix) if tokens[: len(prefix)] == prefix else 0
        latest = engine.snapshot(start)
        if start and not self._prefix(stage, prefix):
            engine.rewind(start)
            self._store.put(engine.snapshot())
            engine.restore(latest)
        if stage.prompt in self._latest:
            self._store.drop(*self._latest[stage.prompt])
        if len(tokens) > start:
            self._store.put(latest)
            self._latest[stage.prompt] = (latest.identity, latest.tokens)

    def note(self, stage: Stage, prefix: tuple[int, ...]) -> str | None:
        """Why the bundle has a state for this stage's prefix, and it was computed all the same."""
        state = self._bundle.state_of(stage)
        if state is None or not self._levers.states:
            return None
        if self._states is None:
            return f"{state} is not used: this engine's KV values cannot be written"
        reason = self._states.refusal(stage, prefix)
        return f"{state} is not used: it is for {reason}" if reason else None

    def _prefix(self, stage: Stage, prefix: tuple[int, ...]) -> Snapshot | None:
        """The state of the stage's prefix, from the bundle or from memory."""
        if stage.prompt not in self._mapped:
            self._mapped[stage.prompt] = self._states.snapshot(stage, prefix) if self._states else None
        if mapped := self._mapped[stage.prompt]:
            return mapped
        kept = self._store.get(self._engine.identity, prefix)
        return kept if kept and kept.start == 0 else None

    def _kept(self, stage: Stage) -> Snapshot | None:
        """What was kept of the stage's latest prompt."""
        return self._store.get(*self._latest[stage.prompt]) if stage.prompt in self._latest else None


def _shared(held: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    """Tokens in common at the beginning, without the last, whose logits are needed."""
    return len(common_prefix([held, tokens[:-1]]))
