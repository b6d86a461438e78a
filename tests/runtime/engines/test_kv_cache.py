from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.runtime.engines.kv_cache import KvBuffers, SnapshotStore
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.errors import EngineError

SHAPE = CacheShape(layers=2, heads=3, head_dim=4)
LIMIT = 2_000


def filled(buffers: KvBuffers, length: int) -> None:
    """Another value everywhere in the first `length` tokens."""
    room = buffers.values[..., :length, :]
    room[...] = np.arange(room.size, dtype=room.dtype).reshape(room.shape)


def test_nothing_is_allocated_before_it_is_needed() -> None:
    assert KvBuffers(SHAPE, LIMIT).values.nbytes == 0


@given(lengths=st.lists(st.integers(1, LIMIT), min_size=1, max_size=10))
def test_growth_makes_room_keeps_what_is_held_and_stays_within_twice_the_need(lengths: list[int]) -> None:
    buffers, held = KvBuffers(SHAPE, LIMIT), 0
    for length in lengths:
        before, memory = buffers.copy(held), buffers.values
        moved = buffers.reserve(length, held)
        assert moved == (buffers.values is not memory)
        assert length <= buffers.capacity <= min(LIMIT, 2 * max(lengths) + 256)
        np.testing.assert_array_equal(buffers.copy(held), before)
        held = length
        filled(buffers, held)


def test_room_that_is_there_is_not_moved() -> None:
    buffers = KvBuffers(SHAPE, LIMIT)
    assert buffers.reserve(10, held=0)
    assert not buffers.reserve(buffers.capacity, held=10)


def test_what_follows_a_long_prefix_does_not_move_it() -> None:
    buffers = KvBuffers(SHAPE, limit=40_000)
    buffers.reserve(31_000, held=0)
    assert not buffers.reserve(31_500, held=31_000)


def test_a_copy_is_compact_and_independent() -> None:
    buffers = KvBuffers(SHAPE, LIMIT)
    buffers.reserve(10, held=0)
    filled(buffers, 10)
    state = buffers.copy(7)
    assert state.shape == (2, 2, 3, 7, 4)
    assert state.nbytes == 2 * 2 * 3 * 7 * 4 * 4
    expected = state.copy()
    buffers.values[...] = -1
    np.testing.assert_array_equal(state, expected)
    with pytest.raises(ValueError, match="read-only"):
        state[0] = 0


def test_load_brings_back_what_copy_took() -> None:
    buffers = KvBuffers(SHAPE, LIMIT)
    buffers.reserve(10, held=0)
    filled(buffers, 10)
    state = buffers.copy(7)
    buffers.values[...] = -1
    buffers.load(state, 7)
    np.testing.assert_array_equal(buffers.copy(7), state)
    assert (buffers.values[..., 7:, :] == -1).all()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 2, 3, 6, 4), np.float32),  # fewer tokens
        ((1, 2, 3, 7, 4), np.float32),  # fewer layers: numpy would broadcast them
        ((2, 2, 3, 7, 1), np.float32),
        ((7, 4), np.float32),
        ((2, 2, 3, 7, 4), np.float64),
        ((2, 2, 3, 6, 4), np.float16),
    ],
)
def test_a_state_of_another_shape_or_type_is_refused_and_nothing_moves(shape: tuple[int, ...], dtype: type) -> None:
    buffers = KvBuffers(SHAPE, LIMIT)
    buffers.reserve(10, held=0)
    filled(buffers, 10)
    before = buffers.copy(10)
    with pytest.raises(EngineError, match="same model"):
        buffers.load(np.zeros(shape, dtype), 7)
    np.testing.assert_array_equal(buffers.copy(10), before)


def test_a_state_in_float16_is_widened_for_a_cache_in_float32_and_for_no_other() -> None:
    state = np.random.default_rng(0).standard_normal((2, 2, 3, 7, 4)).astype(np.float16)
    buffers = KvBuffers(SHAPE, LIMIT)
    buffers.reserve(10, held=0)
    filled(buffers, 10)
    before = buffers.copy(10)
    buffers.load(state, 8, start=1)
    np.testing.assert_array_equal(buffers.copy(8, start=1), state.astype(np.float32))
    np.testing.assert_array_equal(buffers.copy(1), before[:, :, :, :1])
    np.testing.assert_array_equal(buffers.copy(10, start=8), before[:, :, :, 8:])
    narrow = KvBuffers(SHAPE.model_copy(update={"dtype": "float16"}), LIMIT)
    narrow.reserve(10, held=0)
    narrow.load(state, 7)
    np.testing.assert_array_equal(narrow.copy(7), state)
    with pytest.raises(EngineError, match="same model"):
        narrow.load(state.astype(np.float32), 7)


def taken(identity: str, tokens: tuple[int, ...], nbytes: int) -> Snapshot:
    return Snapshot(identity, tokens, np.zeros(nbytes - 8 * len(tokens), dtype=np.uint8))


def test_a_snapshot_is_found_by_its_adapter_and_its_tokens_only() -> None:
    store = SnapshotStore(budget=1_000)
    snapshot = taken("a", (1, 2), 100)
    store.put(snapshot)
    assert store.get("a", (1, 2)) is snapshot
    assert store.get("b", (1, 2)) is None
    assert store.get("a", (1,)) is None
    assert store.get("a", (1, 2, 3)) is None


def test_the_least_recently_used_leaves_first() -> None:
    store = SnapshotStore(budget=250)
    store.put(taken("a", (1,), 100))
    store.put(taken("b", (1,), 100))
    store.get("a", (1,))
    store.put(taken("c", (1,), 100))
    assert store.get("b", (1,)) is None
    assert store.get("a", (1,)) is not None
    assert store.get("c", (1,)) is not None


def test_putting_a_key_again_replaces_it() -> None:
    store = SnapshotStore(budget=1_000)
    newer = taken("a", (1,), 200)
    store.put(taken("a", (1,), 100))
    store.put(newer)
    assert store.get("a", (1,)) is newer
    assert store.nbytes == 200


def test_a_snapshot_above_the_budget_is_not_kept_and_displaces_nothing() -> None:
    store = SnapshotStore(budget=99)
    store.put(taken("small", (1,), 50))
    store.put(taken("large", (1,), 100))
    assert store.get("large", (1,)) is None
    assert store.get("small", (1,)) is not None


@given(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(8, 120)), max_size=30))
def test_the_budget_holds(sizes: list[tuple[int, int]]) -> None:
    store = SnapshotStore(budget=200)
    for token, nbytes in sizes:
        store.put(taken("a", (token,), nbytes))
        assert store.nbytes <= 200
