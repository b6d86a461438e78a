"""The engines that are compared: the bundle's graphs, and the base's graph before quantization."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engine import Engine, ModelSource, open_engine


@dataclass(frozen=True)
class Graphs:
    """The bundle's graphs with all adapters, and the base's in float32 with the external ones, or None."""

    bundle: ModelSource
    before: ModelSource | None


class Sides:
    """Opens the graphs. A merged one is as large as the base, so only one of them is open at a time."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._settings = SessionSettings(detect().cpu.physical_cores, spinning=False)  # PyTorch takes turns with it
        self._open = contextlib.ExitStack()
        external = tuple(adapter for adapter in graphs.bundle.adapters if adapter.mode == "external")
        self._bundle = self._engine(replace(graphs.bundle, adapters=external))
        self._before = self._engine(graphs.before) if graphs.before else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextlib.contextmanager
    def under(self, adapter: str | None) -> Iterator[tuple[Engine, Engine | None]]:
        """(bundle, before quantization or None), each with the adapter in use and nothing read yet."""
        source = self._graphs.bundle
        if adapter is not None and source.adapter(adapter).mode == "merged":
            with open_engine(replace(source, adapters=(source.adapter(adapter),)), self._settings) as merged:
                merged.use(adapter)
                yield merged, None
            return
        for engine in filter(None, (self._bundle, self._before)):
            engine.use(adapter)
        yield self._bundle, self._before

    def _engine(self, source: ModelSource) -> Engine:
        return self._open.enter_context(open_engine(source, self._settings))
