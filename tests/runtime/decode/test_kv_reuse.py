"""An engine that checks what it is given, and counts: nothing is restored that is wrong, nothing computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dualtune_edge.runtime.decode import kv_reuse
from dualtune_edge.runtime.decode.kv_reuse import KvReuse
from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.toolkit.bundle.manifest import Stage

PLENTY = 1 << 20  # bytes
CHOICE, WRITER, BASE = Stage(prompt="choice", adapter="a"), Stage(prompt="writer", adapter="b"), Stage(prompt="base")
PREFIX = (1, 2, 3, 4)


class Plain:
    """An engine whose KV values cannot be read: `keep` has nothing to keep."""

    def __init__(self) -> None:
        self.adapter: str | None = None
        self.tokens: tuple[int, ...] = ()
        self.uses: list[str | None] = []

    @property
    def identity(self) -> str:
        return f"base+{self.adapter}"

    def use(self, adapter: str | None) -> None:
        self.adapter, self.tokens = adapter, ()
        self.uses.append(adapter)

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        self.tokens = self.tokens[:length]

    def read(self, tokens: Sequence[int]) -> int:
        """Compute what is not held of a prompt: the number of tokens."""
        assert self.tokens == tuple(tokens[: len(self.tokens)])
        computed = len(tokens) - len(self.tokens)
        assert computed > 0, "the last token's logits are needed"
        self.tokens = tuple(tokens)
        return computed

    def __getattr__(self, name: str) -> Any:  # the protocols' other members, which nothing here calls
        if name in {"snapshot", "kv_format"}:
            raise AttributeError(name)
        return lambda *_: None


class Readable(Plain):
    """An engine with KV values: one a token, different under every adapter."""

    kv_format = "one a token"

    def __init__(self) -> None:
        super().__init__()
        self.restored: list[tuple[int, ...]] = []

    def snapshot(self, start: int = 0) -> Snapshot:
        values = np.array([hash((self.identity, token)) % 997 for token in self.tokens[start:]], dtype=np.float32)
        return Snapshot(self.identity, self.tokens, values, start)

    def restore(self, snapshot: Snapshot) -> None:
        assert snapshot.identity == self.identity
        assert self.tokens[: snapshot.start] == snapshot.tokens[: snapshot.start]
        assert snapshot.state is not None
        assert len(snapshot.state) == len(snapshot.tokens) - snapshot.start
        self.tokens = snapshot.tokens
        self.restored.append(snapshot.tokens)


@dataclass
class Bundle:
    """The prompts that have a state in the bundle."""

    states: dict[str, str] = field(default_factory=dict)

    def state_of(self, stage: Stage) -> str | None:
        return self.states.get(stage.prompt)


class States:
    """Stands for `PrefixStates`: the bundle's states fit `PREFIX` only."""

    def __init__(self, bundle: Bundle, kv_format: str) -> None:
        assert kv_format == "one a token"
        self.bundle, self.asked = bundle, 0

    def refusal(self, _stage: Stage, prefix: Sequence[int]) -> str | None:
        return None if tuple(prefix) == PREFIX else "another prefix"

    def snapshot(self, stage: Stage, prefix: tuple[int, ...]) -> Snapshot | None:
        self.asked += 1
        if not self.bundle.state_of(stage) or self.refusal(stage, prefix):
            return None
        return Snapshot(f"base+{stage.adapter}", prefix, np.zeros(len(prefix), dtype=np.float32))


@pytest.fixture(autouse=True)
def _states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_reuse, "PrefixStates", States)


def reuse(
    engine: Any, *, levers: Levers | None = None, budget: int = PLENTY, states: dict[str, str] | None = None
) -> KvReuse:
    return KvReuse(engine, Bundle(states or {}), levers or Levers(), budget)  # type: ignore[arg-type]


def call(kept: KvReuse, engine: Any, stage: Stage, tokens: Sequence[int], *, prefix: tuple[int, ...] = PREFIX) -> int:
    """One prompt from `begin` to `keep`: the number of tokens computed."""
    held = kept.begin(stage, prefix, tuple(tokens))
    assert held == len(engine.tokens)
    assert engine.adapter == stage.adapter
    computed: int = engine.read(tokens)
    kept.keep(stage, prefix, tuple(tokens))
    assert engine.tokens == tuple(tokens), "what was read is held still"
    return computed


def test_a_prompt_is_computed_from_where_the_last_one_of_its_stage_differs() -> None:
    engine = Readable()
    kept = reuse(engine)
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 6
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7)) == 1
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 9)) == 1


def test_the_last_token_is_always_computed() -> None:
    engine = Readable()
    kept = reuse(engine)
    call(kept, engine, CHOICE, (*PREFIX, 5))
    assert call(kept, engine, CHOICE, (*PREFIX, 5)) == 1
    assert call(kept, engine, CHOICE, PREFIX) == 1
    assert call(kept, engine, CHOICE, PREFIX) == 1


def test_stages_keep_their_prompts_apart() -> None:
    """Between two prompts of a stage the other one's adapter drops what the engine holds."""
    engine = Readable()
    kept = reuse(engine)
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 6
    assert call(kept, engine, WRITER, (*PREFIX, 5, 6)) == 6
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7, 8)) == 2  # a further turn
    assert call(kept, engine, WRITER, (*PREFIX, 7, 8)) == 2  # another conversation
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7, 8, 9)) == 1
    assert engine.uses == ["a", "b", "a", "b", "a"]


def test_of_a_stage_the_prefix_and_the_latest_prompt_are_kept() -> None:
    engine = Readable()
    kept = reuse(engine)
    call(kept, engine, CHOICE, (*PREFIX, 5, 6))
    call(kept, engine, CHOICE, (*PREFIX, 7, 8))
    call(kept, engine, WRITER, (*PREFIX, 5))
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 2  # the one before the latest is dropped
    assert kept._store.nbytes == sum(snapshot.nbytes for snapshot in kept._store._snapshots.values())
    assert len(kept._store._snapshots) == 4  # both stages' prefixes and latest prompts


def test_only_what_is_needed_is_restored() -> None:
    engine = Readable()
    kept = reuse(engine)
    call(kept, engine, CHOICE, (*PREFIX, 5, 6))
    engine.restored.clear()
    kept.begin(CHOICE, PREFIX, (*PREFIX, 5, 6, 7))  # all of it is held
    assert engine.restored == []
    kept.begin(CHOICE, PREFIX, (*PREFIX, 9))  # the prefix is held
    assert engine.restored == []
    kept.begin(CHOICE, PREFIX, (*PREFIX, 5, 6, 7))  # behind a prefix that is held
    assert engine.restored == [(*PREFIX, 5, 6)]
    engine.use("b")
    engine.restored.clear()
    kept.begin(CHOICE, PREFIX, (*PREFIX, 9))  # nothing behind the prefix helps
    assert engine.restored == [PREFIX]
    engine.use("b")
    engine.restored.clear()
    kept.begin(CHOICE, PREFIX, (*PREFIX, 5, 6, 7))
    assert engine.restored == [PREFIX, (*PREFIX, 5, 6)]
    engine.use("b")
    engine.restored.clear()
    assert kept.begin(CHOICE, PREFIX, (8, 8)) == 0  # nothing is shared
    assert engine.restored == []


@pytest.mark.parametrize("tokens", [(9, 8, 7), (*PREFIX[:3], 9, 9)])
def test_a_prompt_without_the_prefix_is_kept_whole(tokens: tuple[int, ...]) -> None:
    engine = Readable()
    kept = reuse(engine)
    call(kept, engine, CHOICE, tokens)
    engine.use("b")
    engine.restored.clear()
    assert call(kept, engine, CHOICE, (*tokens, 6)) == (1 if len(tokens) > len(PREFIX) else len(tokens) + 1)


def test_a_prompt_that_is_the_prefix_is_kept_as_the_prefix() -> None:
    engine = Readable()
    kept = reuse(engine)
    assert call(kept, engine, CHOICE, PREFIX) == 4
    engine.use("b")
    assert call(kept, engine, CHOICE, PREFIX) == 1
    assert len(kept._store._snapshots) == 1


def test_a_prefix_of_no_tokens_is_none() -> None:
    engine = Readable()
    kept = reuse(engine)
    call(kept, engine, BASE, (5, 6), prefix=())
    engine.use("a")
    assert call(kept, engine, BASE, (5, 6, 7), prefix=()) == 1
    assert len(kept._store._snapshots) == 1


def test_what_stands_behind_a_dropped_prefix_is_left_alone() -> None:
    engine = Readable()
    kept = reuse(engine)
    call(kept, engine, CHOICE, (*PREFIX, 5, 6))
    engine.use("b")
    kept._store.drop("base+a", PREFIX)
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7)) == 7
    engine.use("b")
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7, 8)) == 1  # the prefix was kept again


def test_a_budget_of_nothing_keeps_nothing() -> None:
    engine = Readable()
    kept = reuse(engine, budget=0)
    call(kept, engine, CHOICE, (*PREFIX, 5, 6))
    engine.use("b")
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 6
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7)) == 1  # the engine holds it all the same


def test_without_the_lever_every_prompt_begins_anew_and_nothing_is_kept() -> None:
    engine = Readable()
    kept = reuse(engine, levers=Levers(reuse=False))
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 6
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7)) == 7
    assert engine.uses == ["a", "a"]
    assert kept._store.nbytes == 0


def test_without_the_lever_the_bundle_s_state_still_serves() -> None:
    engine = Readable()
    kept = reuse(engine, levers=Levers(reuse=False), states={"choice": "states/choice"})
    assert [call(kept, engine, CHOICE, (*PREFIX, 5, 6)) for _ in range(2)] == [2, 2]


def test_an_engine_whose_values_cannot_be_read_keeps_what_it_holds() -> None:
    engine = Plain()
    kept = reuse(engine, states={"choice": "states/choice"})
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 6
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 7)) == 1
    assert call(kept, engine, WRITER, (*PREFIX, 5, 7)) == 6
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 7)) == 6


def test_a_state_of_the_bundle_is_mapped_once_and_serves_from_the_first_prompt_on() -> None:
    engine = Readable()
    kept = reuse(engine, states={"choice": "states/choice"})
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 2
    call(kept, engine, WRITER, (*PREFIX, 5))
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7)) == 1
    assert call(kept, engine, WRITER, (*PREFIX, 5, 6)) == 1
    assert isinstance(kept._states, States)
    assert kept._states.asked == 2  # once a stage
    assert ("base+a", PREFIX) not in kept._store._snapshots  # what is mapped is not held in memory too
    assert ("base+b", PREFIX) in kept._store._snapshots


def test_without_the_lever_a_state_is_not_mapped() -> None:
    engine = Readable()
    kept = reuse(engine, levers=Levers(states=False), states={"choice": "states/choice"})
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6)) == 6
    assert kept.note(CHOICE, PREFIX) is None


@pytest.mark.parametrize(
    ("engine", "stage", "prefix", "note"),
    [
        (Readable, CHOICE, PREFIX, None),
        (Readable, CHOICE, (1, 2), "states/choice is not used: it is for another prefix"),
        (Readable, WRITER, (1, 2), None),
        (Plain, CHOICE, PREFIX, "states/choice is not used: this engine's KV values cannot be written"),
        (Plain, WRITER, PREFIX, None),
    ],
)
def test_a_state_that_is_not_used_is_noted(
    engine: type[Plain], stage: Stage, prefix: tuple[int, ...], note: str | None
) -> None:
    kept = reuse(engine(), states={"choice": "states/choice"})
    assert kept.note(stage, prefix) == note
