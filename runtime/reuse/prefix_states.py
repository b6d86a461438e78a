"""KV states of static prefixes, as the bundle carries them: mapped, never read whole, restored where the key agrees.

A state was computed at the export, by the engine and the graph that the bundle is run with. `StateKey` says what it
depends on. One that differs in anything is left alone: the device computes that prefix itself, and says why. One that
is stored in float16 is widened as it is restored. docs/bundle-format.md describes the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.bundle.checks import damaged
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.model_source import AdapterSource, ModelSource
from dualtune_edge.runtime.bundle.plain_files import open_plain
from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.toolkit.bundle.graph_form import GraphForm, StaticGraph
from dualtune_edge.toolkit.bundle.kv_states import CacheShape, StateEntry, StateKey
from dualtune_edge.toolkit.bundle.layout import MODEL_DIR
from dualtune_edge.toolkit.bundle.manifest import Stage

_GRAPH_FILES: Final = ("model.onnx", "model.onnx.data")
_BESIDE_STATIC: Final = ("weights.data", "hidden.npy", "cos.npy", "sin.npy")
_TOKEN: Final = np.dtype("<i8")
_WORDS: Final = {
    "identity": "another base or adapter",
    "graph": "other graph or adapter files",
    "tokens": "another prefix",
    "kv_format": "another engine or KV format",
    "dtype": "another type of KV values",
    "shape": "another shape of the KV cache",
}


class PrefixStates:
    """The states of one bundle, for an engine of one KV format."""

    def __init__(self, bundle: Bundle, kv_format: str) -> None:
        self._bundle, self._kv_format = bundle, kv_format
        self._model = bundle.model
        self._entries = {entry.path: entry for entry in bundle.entry.states}
        self._hashes = {entry.path: entry.sha256 for entry in bundle.manifest.files}

    def refusal(self, stage: Stage, prefix: Sequence[int]) -> str | None:
        """What else the stage's state is for; None if it is for this, or if there is none."""
        entry = self._entries.get(self._bundle.state_of(stage) or "")
        if entry is None:
            return None
        key = self._key(stage, prefix)
        odd = [words for name, words in _WORDS.items() if getattr(entry.key, name) != getattr(key, name)]
        return ", ".join(odd) or None

    def snapshot(self, stage: Stage, prefix: tuple[int, ...]) -> Snapshot | None:
        """The state of the stage's prefix, mapped; None where there is none for it.

        Raises:
            BundleError: the file is not what it was when the bundle was opened.

        """
        entry = self._entries.get(self._bundle.state_of(stage) or "")
        if entry is None or self.refusal(stage, prefix):
            return None
        return Snapshot(entry.key.identity, prefix, self._map(entry))

    def _key(self, stage: Stage, prefix: Sequence[int]) -> StateKey:
        name = self._model.prefix_adapter(stage.adapter)
        adapter = None if name is None else self._model.adapter(name)
        own = None if adapter is None else adapter.path.relative_to(self._bundle.root).as_posix()
        paths = graph_paths(adapter, own, folder=self._bundle.entry.folder, form=self._bundle.entry.graph)
        digest = graph_digest([self._hashes[path] for path in paths])
        return state_key(self._model, name, prefix, graph=digest, kv_format=self._kv_format)

    def _map(self, entry: StateEntry) -> NDArray[np.generic]:
        path, dtype = self._bundle.root / entry.path, np.dtype(entry.dtype).newbyteorder("<")
        try:
            with open_plain(path) as file:
                state: NDArray[np.generic] = np.memmap(file, dtype=dtype, mode="r", shape=entry.key.shape)
        except (OSError, ValueError) as error:
            raise damaged(path, found=str(error), expected=f"values of shape {entry.key.shape}") from None
        return state


def state_key(
    model: ModelSource, adapter: str | None, prefix: Sequence[int], *, graph: str, kv_format: str
) -> StateKey:
    """What the KV values of `prefix` under `adapter` depend on; `graph`: see `graph_digest`."""
    cache = model.cache
    return StateKey(
        identity=model.identity(adapter),
        graph=graph,
        tokens=hashlib.sha256(np.asarray(prefix, dtype=_TOKEN).tobytes()).hexdigest(),
        kv_format=kv_format,
        dtype=cache.dtype,
        shape=state_shape(cache, len(prefix)),
    )


def state_shape(cache: CacheShape, tokens: int) -> tuple[int, int, int, int, int]:
    """(layers, 2, heads, tokens, head_dim): keys and values of each layer."""
    return cache.layers, 2, cache.heads, tokens, cache.head_dim


def graph_paths(
    adapter: AdapterSource | None, path: str | None, *, folder: str = MODEL_DIR, form: GraphForm | None = None
) -> tuple[str, ...]:
    """The files of a bundle that a forward under an adapter reads.

    `path` is the adapter's own in the bundle, `folder` that of the base's graph; `form`: by default dynamic.
    """
    names = (*form.files, *_BESIDE_STATIC) if isinstance(form, StaticGraph) else _GRAPH_FILES
    if adapter is not None and adapter.mode == "merged":
        return tuple(f"{path}/{name}" for name in names)
    base = tuple(f"{folder}/{name}" for name in names)
    return base if path is None else (*base, path)


def graph_digest(hashes: Sequence[str]) -> str:
    """SHA-256 over the hashes of the files that `graph_paths` names, in its order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
