"""Writes one prefix state: its values, which the comparison may have computed, and its entry in the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.states.prefixes import Prefix
from dualtune_edge.export.states.rounded import Rounder
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT, Snapshot
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.runtime.reuse.prefix_states import graph_digest, graph_paths, state_key
from dualtune_edge.toolkit.bundle.kv_states import StateEntry, StateKey
from dualtune_edge.toolkit.bundle.parity import StateParity
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.frozen import Frozen


class KeptState(Frozen):
    """The value of a state in the journal."""

    entry: StateEntry
    parity: StateParity | None


class StateWriter:
    """Writes states into the work folder. A context manager: an engine is opened where it is needed."""

    def __init__(
        self, model: ModelSource, folder: Path, paths: Mapping[str, str], base: str, rounder: Rounder | None
    ) -> None:
        """Write states of a model.

        Args:
            model: its graphs.
            folder: the work folder.
            paths: name of an adapter → its file or folder in the bundle.
            base: the folder of the base's graph in the bundle.
            rounder: chooses the type of a state; None: that of the cache.

        """
        self._model, self._folder, self._paths, self._base, self._rounder = model, folder, paths, base, rounder
        self._hashes: dict[str, str] = {}  # path → SHA-256: the base graph is read for every adapter
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def write(self, prefix: Prefix, computed: Path) -> KeptState:
        """Write a state; `computed` is the file of its values, if the comparison has come by."""
        exact = self._exact(prefix, computed)
        state, judged = exact, None
        if self._rounder:
            self._engine.use(prefix.adapter)
            state, judged = self._rounder.choose(self._engine, prefix.path, prefix.names, exact)
            self._engine.release(prefix.adapter)
        values = np.asarray(state.state)
        (self._folder / prefix.path).write_bytes(values.astype(values.dtype.newbyteorder("<")).tobytes())
        entry = StateEntry(path=prefix.path, key=self._key(prefix), stored=None if state is exact else "float16")
        return KeptState(entry=entry, parity=judged)

    @cached_property
    def _engine(self) -> OrtEngine:
        return self._opened.enter_context(OrtEngine(self._model, SessionSettings(THREADS, spinning=False)))

    def _exact(self, prefix: Prefix, computed: Path) -> Snapshot:
        if computed.exists():
            values: NDArray[np.generic] = np.load(computed, allow_pickle=False)
            computed.unlink()
            return Snapshot(self._model.identity(prefix.adapter), prefix.tokens, values)
        self._engine.use(prefix.adapter)
        self._engine.forward(prefix.tokens)
        exact = self._engine.snapshot()
        self._engine.release(prefix.adapter)
        return exact

    def _key(self, prefix: Prefix) -> StateKey:
        adapter = None if prefix.adapter is None else self._model.adapter(prefix.adapter)
        read = graph_paths(adapter, self._paths.get(prefix.adapter or ""), folder=self._base)
        for path in read:
            self._hashes[path] = self._hashes.get(path) or sha256_file(self._folder / path)
        graph = graph_digest([self._hashes[path] for path in read])
        return state_key(self._model, prefix.adapter, prefix.tokens, graph=graph, kv_format=ORT_KV_FORMAT)
