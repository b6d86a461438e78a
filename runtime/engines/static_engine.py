"""An engine on static graphs: a prompt is cut into chunks of fixed lengths, and the host keeps the KV cache.

The cache is one buffer, token by token, of the graph's own type. What a chunk reads of it are its first tokens and what
it writes are those behind the tokens held, so that both are plain views and nothing is copied. A chunk that is not full
is padded: what it writes for the padding stands behind the tokens held, where no mask ever shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import STATIC_KV_FORMAT, Snapshot
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.runtime.engines.ort_graph import failed, ortvalue
from dualtune_edge.runtime.engines.qnn import by_htp
from dualtune_edge.runtime.engines.static_graph import Array, OpenStatic, Static, by_cpu, mask_of, open_static
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.errors import EdgeError, EngineError


class StaticEngine(HeldSequence):
    """The Engine protocol on static graphs; adapters are merged. Graphs are opened at first use and then stay open."""

    def __init__(self, source: ModelSource, settings: SessionSettings, open_sessions: OpenStatic | None = None) -> None:
        """Open nothing yet; `open_sessions`: by default as `settings` say.

        Raises:
            EngineError: the graphs are not static, or an adapter is external.

        """
        if not isinstance(source.graph, StaticGraph):
            raise EngineError("engine", found="a dynamic graph", expected="static ones", fix="Use the engine 'ort'.")
        for adapter in source.adapters:
            if adapter.mode != "merged":
                raise EngineError(
                    f"adapter {adapter.name}",
                    found="external",
                    expected="merged, as static graphs have them",
                    fix="Export the bundle again.",
                )
        super().__init__(source.vocab_size, min(source.context_length, source.graph.kv_length), source.identity)
        self._source, self._form = source, source.graph
        self._settings = settings
        self._models: dict[Path, Static] = {}
        cache = source.cache
        size = (cache.layers, 2, self._form.kv_length, cache.heads, cache.head_dim)  # 2: keys and values
        self._kv: Array = np.zeros(size, dtype=cache.dtype)
        self._open_sessions = open_sessions or self._opener()

    @property
    def kv_format(self) -> str:
        """How KV values lie, whoever computed them."""
        return STATIC_KV_FORMAT

    @property
    def placement(self) -> Placement:
        """Who runs the graphs that were opened first; all have the same provider."""
        opened = next((model.placement for model in self._models.values()), None)
        return opened or Placement(instead=self._settings.instead)

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        self._model(adapter)
        super().use(adapter)

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after the last, shape (vocab_size,)."""
        model, held = self._model(self._adapter), len(self._tokens)
        ids = self._appendable(tokens)[0]
        start = 0
        while start < len(ids):
            size = self._chunk(held + start, len(ids) - start)
            logits = self._run(model, ids[start : start + size], held + start, size)
            start += size
        self._tokens += tuple(tokens)
        return logits

    def snapshot(self, start: int = 0) -> Snapshot:
        """A copy of the KV state."""
        self._require_held(start)
        state = self._kv[:, :, start : len(self._tokens)].swapaxes(2, 3).copy()
        state.flags.writeable = False
        return Snapshot(self.identity, self.tokens, state, start)

    def close(self) -> None:
        """Release sessions and buffers."""
        super().close()
        self._models.clear()
        self._kv = self._kv[:, :, :0].copy()

    def _load_kv(self, state: NDArray[np.generic], start: int, length: int) -> bool:
        """Write the KV values of the tokens [start, length)."""
        room = self._kv[:, :, start:length].swapaxes(2, 3)
        if state.shape != room.shape or state.dtype != room.dtype:
            raise EngineError(
                "restore",
                found=f"{state.dtype} values of shape {state.shape}",
                expected=f"{room.dtype} of shape {room.shape}",
                fix="Restore a snapshot of the same model.",
            )
        room[...] = state
        return True

    def _chunk(self, held: int, left: int) -> int:
        """The next chunk's length: the shortest that takes all that is left, else the longest, of those with room."""
        fitting = [size for size in self._form.chunks if held + size <= self._form.kv_length]
        return next((size for size in fitting if size >= left), fitting[-1])

    def _run(self, model: Static, ids: NDArray[np.int64], held: int, size: int) -> NDArray[np.float32]:
        """Append ids, shape (tokens,), to `held` others by the graph for `size`; the logits after the last."""
        padded = np.pad(ids, (0, size - len(ids)))
        positions = slice(held, held + size)
        arrays = {
            "hidden": model.tables["hidden"][padded][np.newaxis],
            "cos": np.ascontiguousarray(model.tables["cos"][np.newaxis, positions, np.newaxis]),
            "sin": np.ascontiguousarray(model.tables["sin"][np.newaxis, positions, np.newaxis]),
            "mask": mask_of(held, size, self._form.kv_length, self._kv.dtype),
        }
        if size > 1:
            arrays["logits_at"] = np.array([len(ids) - 1], dtype=np.int64)
        logits = np.empty((1, 1, self.vocab_size), dtype=np.float32)
        io = model.sessions[size].io_binding()
        for name, array in arrays.items():
            io.bind_ortvalue_input(name, ortvalue(array))
        for layer, halves in enumerate(self._kv):
            for half, values in zip(("key", "value"), halves, strict=True):
                io.bind_ortvalue_input(f"past.{layer}.{half}", ortvalue(values[np.newaxis, : len(values) - size]))
                io.bind_ortvalue_output(f"present.{layer}.{half}", ortvalue(values[np.newaxis, positions]))
        io.bind_ortvalue_output("logits", ortvalue(logits))
        try:
            model.sessions[size].run_with_iobinding(io, self._options)
        except Exception as error:  # onnxruntime's errors share no base class
            self._refuse_interrupted()
            raise failed("forward", error) from error
        result: NDArray[np.float32] = logits[0, 0]
        return result

    def _model(self, name: str | None) -> Static:
        """The graphs of an adapter, opened at first use."""
        self._require_open()
        folder = self._source.folder if name is None else self._source.adapter(name).path
        if folder not in self._models:
            try:
                self._models[folder] = open_static(folder, self._source, self._form, self._open_sessions)
            except EngineError as error:
                if self._settings.provider == CPU_PROVIDER:
                    raise
                self._fall_back(error)
                self._models[folder] = open_static(folder, self._source, self._form, self._open_sessions)
        return self._models[folder]

    def _opener(self) -> OpenStatic:
        """The provider's; where it cannot be used at all, the CPU provider's."""
        if self._settings.provider == CPU_PROVIDER:
            return by_cpu(self._settings)
        try:
            return by_htp(self._source, self._settings)
        except EdgeError as error:
            self._fall_back(error)
            return self._open_sessions

    def _fall_back(self, error: EdgeError) -> None:
        """Let the CPU provider run the graphs themselves from now on: the other one fails on this bundle."""
        self._settings = self._settings.without_provider(error.found)
        self._open_sessions = by_cpu(self._settings)
        self._models.clear()
        self._tokens = ()
