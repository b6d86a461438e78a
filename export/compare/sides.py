"""One side of a comparison: the bundle's graphs, or graphs that are built for the comparison."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

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


class Side:
    """Opens the graphs, one at a time, as a merged one is as large as the base. The base's graph is built once."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        # PyTorch takes turns with it, hence no spinning.
        self._settings = SessionSettings(THREADS, spinning=False, packing=graphs.packing)
        self._folders, self._open = contextlib.ExitStack(), contextlib.ExitStack()
        self._folder_of_base: Path | None = None
        self._base: OrtEngine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_base()
        self._folders.close()

    @contextlib.contextmanager
    def under(self, adapter: str | None) -> Iterator[Engine]:
        """An engine with the adapter in use that holds no token."""
        source = None if adapter is None else self._graphs.source.adapter(adapter)
        if source and source.mode == "merged":
            self._close_base()
            with self._merged(source) as engine:
                engine.use(adapter)
                yield engine
            return
        base = self._opened_base()
        base.use(adapter)
        yield base
        if adapter:
            base.release(adapter)

    def _opened_base(self) -> OrtEngine:
        if self._folder_of_base is None:
            self._folder_of_base = self._folders.enter_context(self._folder(self._graphs.source.folder, None))
        if self._base is None:
            source = self._graphs.source
            external = tuple(adapter for adapter in source.adapters if adapter.mode == "external")
            source = replace(source, folder=self._folder_of_base, adapters=external)
            self._base = self._open.enter_context(OrtEngine(source, self._settings))
            self._base.use(None)  # keeps the graph open when an adapter is released
        return self._base

    def _close_base(self) -> None:
        self._open.close()
        self._base = None

    @contextlib.contextmanager
    def _merged(self, adapter: AdapterSource) -> Iterator[Engine]:
        with self._folder(adapter.path, adapter.name) as folder:
            source = replace(self._graphs.source, adapters=(adapter.model_copy(update={"path": folder}),))
            with OrtEngine(source, self._settings) as engine:
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
