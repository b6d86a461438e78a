"""KV state: the buffer that a model reads and extends in place, and a store of snapshots under a byte budget."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.runtime.engines.widen import widen
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.errors import EngineError

_STEP: Final = 256  # tokens: a capacity is a multiple of this


class KvBuffers:
    """Keys and values of every layer, grown by doubling.

    A context may be 32k tokens where a prompt is 500: memory follows what is used, at most twice of it, and a growth
    copies the tokens held (12 KB each for a 0.5B model). Nothing is zeroed: no kernel reads beyond the tokens held.
    """

    def __init__(self, shape: CacheShape, limit: int) -> None:
        """`limit`: the most tokens that will ever be held."""
        self._shape, self._limit = shape, limit
        self.values = self._allocate(0)

    @property
    def capacity(self) -> int:
        """Tokens that fit without another growth."""
        return int(self.values.shape[4])

    def reserve(self, length: int, held: int) -> bool:
        """Make room for `length` tokens, keeping the first `held`; whether the memory moved."""
        if length <= self.capacity:
            return False
        wanted = max(length + length // 8, 2 * self.capacity)  # words and an answer follow a restored tool list
        grown = self._allocate(min(-(-wanted // _STEP) * _STEP, self._limit))
        grown[..., :held, :] = self.values[..., :held, :]
        self.values = grown
        return True

    def copy(self, length: int, start: int = 0) -> NDArray[np.generic]:
        """Values of the tokens [start, length), read-only, shape (layers, 2, heads, length - start, head_dim)."""
        state = self.values[:, :, 0, :, start:length].copy()
        state.flags.writeable = False
        return state

    def load(self, state: NDArray[np.generic], length: int, start: int = 0) -> None:
        """Write the state of the tokens [start, length), as `copy` returned it; room must be reserved.

        For a cache in float32 it may be float16, as a bundle may store it: the values are then widened.

        Raises:
            EngineError: the state is of another shape or type; nothing was written.

        """
        room = self.values[:, :, 0, :, start:length]
        narrow = state.dtype == np.float16 and room.dtype == np.float32
        if state.shape != room.shape or not (narrow or state.dtype == room.dtype):
            raise EngineError(
                "restore",
                found=f"{state.dtype} values of shape {state.shape}",
                expected=f"{room.dtype} of shape {room.shape}",
                fix="Restore a snapshot of the same model.",
            )
        if narrow:
            widen(state, room)
        else:
            room[...] = state

    def _allocate(self, tokens: int) -> NDArray[np.generic]:
        shape = self._shape
        dims = (shape.layers, 2, 1, shape.heads, tokens, shape.head_dim)  # 2: keys and values; 1: batch
        return np.empty(dims, dtype=np.dtype(shape.dtype))


class SnapshotStore:
    """Snapshots by (identity, tokens): the least recently used leave once the bytes exceed the budget."""

    def __init__(self, budget: int) -> None:
        """`budget`: bytes. A single snapshot above it is not kept."""
        self._budget = budget
        self._snapshots: OrderedDict[tuple[str, tuple[int, ...]], Snapshot] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(snapshot.nbytes for snapshot in self._snapshots.values())

    def get(self, identity: str, tokens: tuple[int, ...]) -> Snapshot | None:
        """The snapshot of exactly these tokens under this base and adapter, now the most recently used."""
        key = (identity, tokens)
        if key not in self._snapshots:
            return None
        self._snapshots.move_to_end(key)
        return self._snapshots[key]

    def put(self, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of an earlier one of the same key."""
        if snapshot.nbytes > self._budget:
            return
        self._snapshots[snapshot.identity, snapshot.tokens] = snapshot
        self._snapshots.move_to_end((snapshot.identity, snapshot.tokens))
        while self.nbytes > self._budget:
            self._snapshots.popitem(last=False)

    def drop(self, identity: str, tokens: tuple[int, ...]) -> None:
        """Forget a snapshot, if it is still here."""
        self._snapshots.pop((identity, tokens), None)
