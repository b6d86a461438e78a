"""An engine that checks what it is given, and counts: nothing is restored that is wrong, nothing computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.reuse import kv_reuse
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.runtime.reuse.kv_reuse import KvReuse
from dualtune_edge.toolkit.bundle.manifest import Stage

PLENTY = 1 << 20  # bytes
CHOICE, WRITER, BASE = Stage(prompt="choice", adapter="a"), Stage(prompt="writer", adapter="b"), Stage(prompt="base")
PREFIX = (1, 2, 3, 4)
INVOCATIONS = {"x": (7, 8), "y": (7, 9)}
PICKER, FILLER = Stage(prompt="picker", adapter="x"), Stage(prompt="filler", adapter="y")


class Plain:
    """An engine whose KV values cannot be read: `keep` has nothing to keep."""

    def __init__(self) -> None:
        self.adapter: str | None = None
        self.tokens: tuple[int, ...] = ()
        self.computed: tuple[str, ...] = ()
        self.uses: list[str | None] = []

    @property
    def identity(self) -> str:
        return f"base+{self.adapter}"

    def use(self, adapter: str | None) -> None:
        self.adapter, self.tokens = adapter, ()
        self.uses.append(adapter)

    def switch(self, adapter: str | None) -> None:
        kept = self.values.count("base+None")
        assert set(self.values[:kept]) <= {"base+None"}
        self.rewind(kept)
        self.adapter = adapter
        self.uses.append(adapter)

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        self.tokens = self.tokens[:length]

    @property
    def values(self) -> tuple[str, ...]:
        """Under what each token's KV values were computed."""
        return self.computed[: len(self.tokens)]

    def forward(self, tokens: Sequence[int]) -> None:
        assert tokens
        under = f"base+{self.adapter}"
        self.computed = (*self.values, *(under for _ in tokens))
        self.tokens = (*self.tokens, *tokens)

    def read(self, tokens: Sequence[int]) -> int:
        """Compute what is not held of a prompt: the number of tokens."""
        assert self.tokens == tuple(tokens[: len(self.tokens)])
        computed = len(tokens) - len(self.tokens)
        assert computed > 0, "the last token's logits are needed"
        self.forward(tokens[-computed:])
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
        assert set(self.values) <= {self.identity}
        values = np.array([hash((self.identity, token)) % 997 for token in self.tokens[start:]], dtype=np.float32)
        return Snapshot(self.identity, self.tokens, values, start)

    def restore(self, snapshot: Snapshot) -> None:
        assert snapshot.identity == self.identity
        assert self.tokens[: snapshot.start] == snapshot.tokens[: snapshot.start]
        assert snapshot.state is not None
        assert len(snapshot.state) == len(snapshot.tokens) - snapshot.start
        self.computed = tuple(snapshot.identity for _ in snapshot.tokens)
        self.tokens = snapshot.tokens
        self.restored.append(snapshot.tokens)


class Model:
    """The activated adapters `x` and `y`; all others are plain."""

    def invocation(self, adapter: str | None) -> tuple[int, ...] | None:
        return INVOCATIONS.get(adapter or "")

    def prefix_adapter(self, adapter: str | None) -> str | None:
        return None if self.invocation(adapter) else adapter


@dataclass
class Bundle:
    """The prompts that have a state in the bundle."""

    states: dict[str, str] = field(default_factory=dict)
    model: Model = field(default_factory=Model)

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
        return Snapshot(
            f"base+{Model().prefix_adapter(stage.adapter)}", prefix, np.zeros(len(prefix), dtype=np.float32)
        )


@pytest.fixture(autouse=True)
def _states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_reuse, "PrefixStates", States)


def reuse(
    engine: Any, *, levers: Levers | None = None, budget: int = PLENTY, states: dict[str, str] | None = None
) -> KvReuse:
    return KvReuse(engine, Bundle(states or {}), levers or Levers(), budget)  # type: ignore[arg-type]


def call(kept: KvReuse, engine: Any, stage: Stage, tokens: Sequence[int], *, prefix: tuple[int, ...] = PREFIX) -> int:
    """One prompt from `begin` to `keep`: the number of tokens computed."""
    held = kept.begin(stage, prefix, tuple(tokens)).tokens
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
    assert kept.begin(CHOICE, PREFIX, (8, 8)).tokens == 0  # nothing is shared
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


def branch(
    kept: KvReuse, engine: Any, stage: Stage, tokens: tuple[int, ...], *, answer: Any = (5,), frame: Any = ()
) -> int:
    """One prompt of an activated adapter, and what is written behind it: the number of tokens computed."""
    given = (*tokens, *frame)
    held = kept.begin(stage, PREFIX, tokens, frame)
    assert held.tokens == len(engine.tokens)
    assert held.forwards == (held.tokens > held.reused)
    if held.tokens < len(given):
        engine.read(given)
    engine.forward(answer)
    border = base_part(given, INVOCATIONS[stage.adapter or ""])
    active = len(given) + len(answer) - border if border < len(given) else 0
    under = ("base+None",) * (len(given) + len(answer) - active) + (f"base+{stage.adapter}",) * active
    assert (engine.tokens, engine.values) == ((*given, *answer), under)
    kept.keep(stage, PREFIX, tokens)
    assert engine.adapter is None
    assert set(engine.values) <= {"base+None"}
    return len(given) - held.reused


def test_activated_stages_and_the_base_read_a_conversation_once() -> None:
    engine = Readable()
    kept = reuse(engine)
    talk = (*PREFIX, 5, 6, 5)
    assert branch(kept, engine, PICKER, (*talk, 7, 8)) == 9
    engine.restored.clear()
    assert branch(kept, engine, FILLER, (*talk, 7, 9)) == 2  # its invocation alone
    assert call(kept, engine, BASE, (*talk, 7, 8, 6)) == 3
    assert branch(kept, engine, PICKER, (*talk, 7, 8, 6, 6, 7, 8)) == 3  # a further turn, behind the answer
    assert engine.restored == []


def test_between_activated_stages_a_plain_one_costs_nothing_but_itself() -> None:
    engine = Readable()
    kept = reuse(engine)
    talk = (*PREFIX, 5, 6, 5)
    branch(kept, engine, PICKER, (*talk, 7, 8))
    assert call(kept, engine, CHOICE, (*talk, 7, 8)) == 9
    assert branch(kept, engine, FILLER, (*talk, 7, 9)) == 2
    assert call(kept, engine, CHOICE, (*talk, 7, 8, 5)) == 1


def test_activated_stages_share_the_state_of_their_prefix() -> None:
    engine = Readable()
    kept = reuse(engine, states={"picker": "states/picker", "filler": "states/picker"})
    assert branch(kept, engine, PICKER, (*PREFIX, 5, 7, 8)) == 3
    engine.use("a")
    assert branch(kept, engine, FILLER, (*PREFIX, 6, 7, 9)) == 3
    assert not [key for key in kept._store._snapshots if key[0] != "base+None"]


@pytest.mark.parametrize(
    ("tokens", "frame", "computed"),
    [
        ((*PREFIX, 5, 6), (), 6),  # none: the base answers
        ((*PREFIX, 7, 8, 6, 7, 8), (), 9),  # the last of two
        ((7, 8, *PREFIX), (), 6),  # at the first token
        ((*PREFIX[:2], 7, 8), (), 4),  # in place of the prefix's end
        ((*PREFIX, 7, 8), (), 6),  # right behind it
        ((*PREFIX, 5), (5, 7, 8), 8),  # in the frame
        ((*PREFIX, 5, 7), (8, 5), 8),  # on the border of the two
    ],
)
def test_the_adapter_is_active_from_the_last_invocation_on(
    tokens: tuple[int, ...], frame: tuple[int, ...], computed: int
) -> None:
    engine = Readable()
    kept = reuse(engine)
    assert branch(kept, engine, PICKER, tokens, frame=frame) == computed
    assert branch(kept, engine, PICKER, tokens, frame=frame, answer=(7, 8)) <= computed  # what is written has no say


def test_a_branch_that_an_error_left_is_dropped() -> None:
    engine = Readable()
    kept = reuse(engine)
    kept.begin(PICKER, PREFIX, (*PREFIX, 5, 6, 7, 8))
    engine.read((*PREFIX, 5, 6, 7, 8))
    assert call(kept, engine, BASE, (*PREFIX, 5, 6, 7, 8)) == 2
    kept.begin(PICKER, PREFIX, (*PREFIX, 5, 6, 7, 8))
    assert branch(kept, engine, FILLER, (*PREFIX, 5, 6, 7, 9)) == 2
    kept.begin(PICKER, PREFIX, (*PREFIX, 5, 6, 7, 8))
    assert call(kept, engine, CHOICE, (*PREFIX, 5, 6, 7, 8)) == 8


_WORDS = st.lists(st.sampled_from((5, 6, 7, 8, 9)), max_size=6)
_TURNS = st.tuples(st.sampled_from((CHOICE, WRITER, BASE, PICKER, FILLER)), st.integers(0, 12), _WORDS, st.booleans())


@settings(max_examples=300, deadline=None)
@given(turns=st.lists(_TURNS, max_size=12), budget=st.sampled_from((0, 200, PLENTY)), mapped=st.booleans())
def test_whatever_came_before_each_token_is_computed_under_its_own_adapter(
    turns: list[tuple[Stage, int, list[int], bool]], budget: int, *, mapped: bool
) -> None:
    """Conversations are continued and cut back, stages change, and some end midway."""
    engine, talk = Readable(), list[int]()
    kept = reuse(engine, budget=budget, states={"picker": "a", "choice": "b"} if mapped else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_reuse, "PrefixStates", States)
        for stage, length, words, whole in turns:
            talk = [*talk[:length], *words]
            tokens = (*PREFIX, *talk)
            held = kept.begin(stage, PREFIX, tokens)
            if held.tokens < len(tokens):
                engine.read(tokens)
            invocation = INVOCATIONS.get(stage.adapter or "")
            border = base_part(tokens, invocation) if invocation else 0
            active = (f"base+{stage.adapter}",) * (len(tokens) - border)
            assert engine.tokens == tokens
            assert engine.values == (*("base+None",) * border, *active)
            if whole:
                kept.keep(stage, PREFIX, tokens)
