"""The Engine protocol: a model that holds the KV state of one token sequence under one adapter."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self, cast, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.errors import EngineError

EngineKind = Literal["ort", "genai"]

ORT_KV_FORMAT: Final = "ort/1"  # GroupQueryAttention's: keys rotated; a new number where the same model's would differ
# Integers on the graph's ranges, by whichever provider: those of an NPU and the CPU are roundings of the same values.
STATIC_KV_FORMAT: Final = "static/1"

_ENGINES: Final[dict[EngineKind, tuple[str, str]]] = {  # imported when opened: one needs only its own library
    "ort": ("dualtune_edge.runtime.engines.ort_engine", "OrtEngine"),
    "genai": ("dualtune_edge.runtime.engines.genai_engine", "GenaiEngine"),
}
_STATIC: Final = ("dualtune_edge.runtime.engines.static_engine", "StaticEngine")  # by onnxruntime too


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The KV state of `tokens[start:]` under one adapter, apart from any engine.

    `state` has shape (layers, 2, kv_heads, len(tokens) - start, head_dim): keys and values of each layer, read-only. It
    is None where the engine cannot save them; restoring then computes them again.
    """

    identity: str  # Engine.identity when it was taken
    tokens: tuple[int, ...]
    state: NDArray[np.generic] | None
    start: int = 0  # tokens before it are not in `state`: an engine restores it behind them only

    @property
    def nbytes(self) -> int:
        """Bytes held: the KV values, and 8 a token."""
        return 8 * len(self.tokens) + (0 if self.state is None else self.state.nbytes)


class Engine(Protocol):
    """One token sequence at a time. Not for use by several threads at once. Closed by leaving its `with` block."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def context_length(self) -> int:
        """The most tokens that can be held."""

    @property
    def adapter(self) -> str | None:
        """The active adapter; None: the base."""

    @property
    def identity(self) -> str:
        """What KV values depend on besides the tokens; equal for equal base and adapter content."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose KV is held, in order."""

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state: KV of one adapter is wrong under another.

        Raises:
            EngineError: no such adapter, or it does not fit the graph.

        """

    def switch(self, adapter: str | None) -> None:
        """Keep the tokens that the base has computed, and go on under an activated adapter (None: the base).

        What an adapter has computed is dropped.

        Raises:
            EngineError: no such adapter, one that is not activated, or it does not fit the graph.

        """

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens (one or more) and return the logits after the last, shape (vocab_size,), the caller's own.

        Raises:
            RequestError: more tokens than the context holds; nothing was appended.
            EngineError: no token, or one outside the vocabulary.
            StoppedError: it was interrupted; nothing was appended.

        """

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens only.

        Raises:
            EngineError: fewer are held.

        """

    def snapshot(self) -> Snapshot:
        """A copy of the KV state, independent of what follows."""

    def restore(self, snapshot: Snapshot) -> None:
        """Replace the KV state by the snapshot's.

        Raises:
            EngineError: it was taken under another adapter or base, or its shape is not this model's.

        """

    def interrupt(self) -> None:
        """Make the forward that runs, and each later one, end with a `StoppedError`. Any thread may call it.

        The tokens held stay as they were before that forward.
        """

    def resume(self) -> None:
        """Let forwards run again."""

    def close(self) -> None:
        """Release sessions and buffers; every later call is an EngineError."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class RowsEngine(Engine, Protocol):
    """An engine that gives logits of several positions from one forward: what a draft is verified with."""

    def forward_rows(self, tokens: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after some of them, shape (len(rows), vocab_size), the caller's own.

        Args:
            tokens: one or more.
            rows: their indices in `tokens`, rising.

        Raises:
            RequestError: more tokens than the context holds; nothing was appended.
            EngineError: no token, one outside the vocabulary, or rows that are none of the tokens or do not rise;
                nothing was appended.

        """


@runtime_checkable
class StateEngine(Engine, Protocol):
    """An engine whose KV values can be read and written: what prefix states need."""

    @property
    def kv_format(self) -> str:
        """How its KV values lie in a snapshot, and who computed them; another format is never restored."""

    def snapshot(self, start: int = 0) -> Snapshot:
        """A copy of the KV state from token `start` on, independent of what follows.

        It is restored where the tokens before `start` are held already; without them `restore` raises an EngineError.

        Raises:
            EngineError: fewer tokens are held.

        """


@runtime_checkable
class PlacedEngine(Engine, Protocol):
    """An engine that says who runs its graphs."""

    @property
    def placement(self) -> Placement:
        """The provider, and what it leaves to the CPU."""


class _Opener(Protocol):
    def __call__(self, source: ModelSource, settings: SessionSettings) -> Engine: ...


def open_engine(source: ModelSource, settings: SessionSettings, kind: EngineKind = "ort") -> Engine:
    """Open an engine on a model whose files were verified.

    Raises:
        EngineError: unknown kind, or one that cannot run by this provider; a graph that is not as expected, or an
            adapter that does not fit it.
        MissingExtraError: the engine's library is not installed.

    """
    if kind not in _ENGINES:
        raise EngineError(
            "engine", found=repr(kind), expected=" or ".join(get_args(EngineKind)), fix="Use one of them."
        )
    if kind == "genai" and settings.provider != CPU_PROVIDER:
        raise EngineError(
            "engine 'genai'",
            found=f"a profile for {settings.provider}",
            expected=f"one for {CPU_PROVIDER}, the only one that this engine runs",
            fix="Use the engine 'ort', or another profile.",
        )
    module, name = _ENGINES[kind]
    if source.graph.form == "static":
        if kind != "ort":
            raise EngineError(
                f"engine {kind!r}",
                found="static graphs",
                expected="a dynamic graph, the only form that this engine runs",
                fix="Use the engine 'ort', or a profile with a dynamic graph.",
            )
        module, name = _STATIC
    try:
        opener = cast("_Opener", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        raise extras.missing(error, f"engine {kind!r}") or error from None
    return opener(source, settings)
