"""One side of a comparison: the bundle's graphs, or graphs that are built for the comparison."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import AdapterSource, ModelSource
from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.runtime.engines.ort_engine import OrtEngine

Build: TypeAlias = Callable[[Path, str | None], None]  # (new folder, merged adapter or None: the base with its slots)


@dataclass(frozen=True)
class Graphs:
    """Graphs of one base with all adapters.

    `base` is the checkpoint or its first layers. `build` writes one of the graphs to `scratch`, where it lives as long
    as its engine; None: the graphs are the bundle's own, in `source`. `packing`: see `SessionSettings`; it would hold
    weights in float32 twice.
    """

    base: Checkpoint
    source: ModelSource
    build: Build | None
    scratch: Path
    packing: bool = True


@dataclass(frozen=True)
class Beginning:
    """The static prefix that a stage begins with, where an engine reads it by itself.

    `adapter` is a name for all adapters of equal content. `shared`: other stages begin alike, and go on behind it.
    `file` takes the KV state, in numpy's format, for the bundle's prefix states; None: it has none.
    """

    adapter: str | None
    tokens: tuple[int, ...]
    shared: bool
    file: Path | None


class Side:
    """Opens the graphs, one at a time, as a merged one is as large as the base. The base's graph is built once."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        # PyTorch takes turns with it, hence no spinning.
        self._settings = SessionSettings(THREADS, spinning=False, packing=graphs.packing)
        self._folders, self._open = contextlib.ExitStack(), contextlib.ExitStack()
        self._folder_of_base: Path | None = None
        self._merged: Path | None = None  # the folder of the merged graph that is open
        self._engine: OrtEngine | None = None
        self._begun: Beginning | None = None  # what the engine has read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._folders.close()

    @contextlib.contextmanager
    def under(self, adapter: str | None, beginning: Beginning | None = None) -> Iterator[Engine]:
        """An engine with the adapter in use that holds no token, or those of the beginning."""
        source = None if adapter is None else self._graphs.source.adapter(adapter)
        engine = self._opened(source if source and source.mode == "merged" else None)
        begun = self._begun
        if beginning and begun and (begun.adapter, begun.tokens) == (beginning.adapter, beginning.tokens):
            engine.rewind(len(beginning.tokens))
        else:
            engine.use(adapter)
            if beginning:
                engine.forward(beginning.tokens)
        if beginning and beginning.file and not beginning.file.exists():
            _write(engine, beginning.file)
        self._begun = beginning
        yield engine
        if source and source.mode == "external":
            engine.release(adapter)

    def _opened(self, merged: AdapterSource | None) -> OrtEngine:
        """The engine of the base's graph, or of a merged adapter's."""
        folder = merged.path if merged else None
        if self._engine is None or self._merged != folder:
            self._close()
            self._engine = self._open.enter_context(self._graph_of(merged) if merged else self._graph_of_base())
            self._merged = folder
        return self._engine

    def _close(self) -> None:
        self._open.close()
        self._engine = self._begun = None

    @contextlib.contextmanager
    def _graph_of_base(self) -> Iterator[OrtEngine]:
        if self._folder_of_base is None:
            self._folder_of_base = self._folders.enter_context(self._folder(self._graphs.source.folder, None))
        source = self._graphs.source
        external = tuple(adapter for adapter in source.adapters if adapter.mode == "external")
        with OrtEngine(replace(source, folder=self._folder_of_base, adapters=external), self._settings) as engine:
            engine.use(None)  # keeps the graph open when an adapter is released
            yield engine

    @contextlib.contextmanager
    def _graph_of(self, merged: AdapterSource) -> Iterator[OrtEngine]:
        """The graph of a merged adapter, which serves all adapters of that content."""
        with self._folder(merged.path, merged.name) as folder:
            adapters = tuple(
                adapter.model_copy(update={"path": folder})
                for adapter in self._graphs.source.adapters
                if adapter.path == merged.path
            )
            with OrtEngine(replace(self._graphs.source, adapters=adapters), self._settings) as engine:
                yield engine

    @contextlib.contextmanager
    def _folder(self, own: Path, merged: str | None) -> Iterator[Path]:
        """The bundle's folder, or one that is built and lives as long as the context."""
        if self._graphs.build is None:
            yield own
            return
        with tempfile.TemporaryDirectory(prefix=".compared.", dir=self._graphs.scratch) as folder:
            self._graphs.build(Path(folder) / "model", merged)
            yield Path(folder) / "model"


def _write(engine: OrtEngine, file: Path) -> None:
    with file.open("wb") as out:
        np.save(out, np.asarray(engine.snapshot().state), allow_pickle=False)
