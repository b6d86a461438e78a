"""Random work on an engine against the naive way: the whole sequence computed afresh for every answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, Snapshot, open_engine

SETTINGS = SessionSettings(intra_op_threads=1)
ADAPTERS = (None, "wide", "narrow", "merged")
NOISE = 1e-4

Step = tuple[str, Any]
token = st.integers(0, 287)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("forward"), st.lists(token, min_size=1, max_size=12)),
        st.tuples(st.just("forward"), st.lists(token, min_size=1, max_size=1)),
        st.tuples(st.just("rewind"), st.floats(0, 1)),  # the share that is kept
        st.tuples(st.just("use"), st.sampled_from(ADAPTERS)),
        st.tuples(st.just("snapshot"), st.none()),
        st.tuples(st.just("restore"), st.none()),  # the last snapshot of the adapter in use
    ),
    max_size=20,
)


@dataclass
class Replay:
    """The naive model: an adapter and its tokens; an answer computes all of them in one run."""

    engine: Engine
    adapter: str | None = None
    tokens: tuple[int, ...] = ()
    snapshots: dict[str | None, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.logits = lru_cache(maxsize=None)(self._logits)

    def _logits(self, adapter: str | None, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        self.engine.use(adapter)
        return self.engine.forward(tokens)


@pytest.fixture(scope="module")
def pair(source: ModelSource, kind: EngineKind) -> Iterator[tuple[Engine, Engine]]:
    with open_engine(source, SETTINGS, kind) as engine, open_engine(source, SETTINGS, kind) as naive:
        yield engine, naive


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(work=steps)
def test_any_work_gives_what_a_replay_gives(pair: tuple[Engine, Engine], work: list[Step]) -> None:
    engine, replay = pair[0], Replay(pair[1])
    snapshots: dict[str | None, Snapshot] = {}
    engine.use(None)
    for name, value in work:
        if name == "forward":
            logits = engine.forward(value)
            replay.tokens += tuple(value)
            np.testing.assert_allclose(logits, replay.logits(replay.adapter, replay.tokens), atol=NOISE, rtol=0)
        elif name == "rewind":
            length = int(value * len(replay.tokens))
            engine.rewind(length)
            replay.tokens = replay.tokens[:length]
        elif name == "use":
            engine.use(value)
            replay.adapter, replay.tokens = value, ()
        elif name == "snapshot":
            snapshots[replay.adapter] = engine.snapshot()
            replay.snapshots[replay.adapter] = replay.tokens
        elif replay.adapter in snapshots:
            engine.restore(snapshots[replay.adapter])
            replay.tokens = replay.snapshots[replay.adapter]
        assert (engine.adapter, engine.tokens) == (replay.adapter, replay.tokens)
