"""An engine that is watched: each run of the model, change of adapter and restored state with its time.

It can also be made to say a script: the logits of the script's next token are raised above all others. Whatever
chooses by logits then decodes exactly the gold call, in its own way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.bench.scripts import Script
from dualtune_edge.runtime.engines.engine import Engine, PlacedEngine, RowsEngine, Snapshot, StateEngine
from dualtune_edge.runtime.result import Placement

EventKind = Literal["forward", "use", "restore", "snapshot"]
Result = TypeVar("Result")
_RAISED: Final = np.float32(1e4)  # exp(-1e4) is 0


@dataclass(frozen=True)
class Event:
    """Something that the engine did. Times are `time.perf_counter()` seconds."""

    kind: EventKind
    start: float
    end: float
    adapter: str | None
    held: tuple[int, ...]  # tokens held afterwards
    appended: int = 0  # tokens of a forward
    drafted: int = 0  # of these, ones whose logits were asked for besides the last one's


@dataclass
class Record:
    """What is watched. `scripts` are said while there are some."""

    events: list[Event] = field(default_factory=list)
    scripts: Sequence[Script] = ()


class Watched:
    """The Engine protocol, passed on; the engine stays its opener's to close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.record = Record()

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return self._engine.vocab_size

    @property
    def context_length(self) -> int:
        """The most tokens that can be held."""
        return self._engine.context_length

    @property
    def adapter(self) -> str | None:
        """The active adapter; None: the base."""
        return self._engine.adapter

    @property
    def identity(self) -> str:
        """What KV values depend on besides the tokens."""
        return self._engine.identity

    @property
    def placement(self) -> Placement:
        """The provider, and what it leaves to the CPU."""
        return self._engine.placement if isinstance(self._engine, PlacedEngine) else Placement()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose KV is held, in order."""
        return self._engine.tokens

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        self._timed("use", lambda: self._engine.use(adapter))

    def switch(self, adapter: str | None) -> None:
        """Keep what the base has computed, and go on under an activated adapter (None: the base)."""
        self._timed("use", lambda: self._engine.switch(adapter))

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after the last, shape (vocab_size,)."""
        logits = self._timed("forward", lambda: self._engine.forward(tokens), appended=len(tokens))
        self._say(logits[np.newaxis], [len(tokens) - 1], len(tokens))
        return logits

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        self._engine.rewind(length)

    def snapshot(self) -> Snapshot:
        """A copy of the KV state."""
        return self._timed("snapshot", self._engine.snapshot)

    def restore(self, snapshot: Snapshot) -> None:
        """Replace the KV state by the snapshot's."""
        self._timed("restore", lambda: self._engine.restore(snapshot))

    def interrupt(self) -> None:
        """End the forward that runs, and every later one."""
        self._engine.interrupt()

    def resume(self) -> None:
        """Let forwards run again."""
        self._engine.resume()

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _timed(self, kind: EventKind, work: Callable[[], Result], appended: int = 0, drafted: int = 0) -> Result:
        start = time.perf_counter()
        result = work()
        end = time.perf_counter()
        self.record.events.append(Event(kind, start, end, self._engine.adapter, self._engine.tokens, appended, drafted))
        return result

    def _say(self, logits: NDArray[np.float32], rows: Sequence[int], count: int) -> None:
        """Raise the script's next token in the logits after each of `rows` of the `count` tokens just appended."""
        if not self.record.scripts:
            return
        held, adapter = self._engine.tokens, self._engine.adapter
        for vector, row in zip(logits, rows, strict=True):
            seen = held[: len(held) - count + row + 1]
            wanted = (script.next_token(adapter, seen) for script in self.record.scripts)
            token = next((token for token in wanted if token is not None), None)
            if token is not None:
                vector[token] = vector.max() + _RAISED


class _Full(RowsEngine, StateEngine, Protocol):
    """An engine with all that a pipeline may ask for."""


class WatchedFull(Watched):
    """The same with logits of several positions, and KV values that can be read."""

    def __init__(self, engine: _Full) -> None:
        super().__init__(engine)
        self._full = engine

    @property
    def kv_format(self) -> str:
        """How KV values lie."""
        return self._full.kv_format

    def forward_rows(self, tokens: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after those of indices `rows`, shape (len(rows), vocab_size)."""
        logits = self._timed(
            "forward",
            lambda: self._full.forward_rows(tokens, rows),
            appended=len(tokens),
            drafted=len([row for row in rows if row < len(tokens) - 1]),
        )
        self._say(logits, rows, len(tokens))
        return logits

    def snapshot(self, start: int = 0) -> Snapshot:
        """A copy of the KV state from token `start` on."""
        return self._timed("snapshot", lambda: self._full.snapshot(start))


def watch(engine: Engine) -> Watched:
    """Watch an engine; what it can do besides the protocol, it can do still."""
    if isinstance(engine, RowsEngine) and isinstance(engine, StateEngine):
        return WatchedFull(engine)
    return Watched(engine)
