"""The engines that are compared: the bundle's graphs, and the same graphs before quantization."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engine import AdapterSource, Engine, ModelSource, open_engine

BuildBefore: TypeAlias = Callable[[Path, str | None], None]  # (folder, merged adapter or None: the base with its slots)


@dataclass(frozen=True)
class Graphs:
    """The bundle's graphs with all adapters. `build_before` writes one of them in float32; None: not compared.

    `scratch` is an existing folder, in which those are written; they are gone with the engines.
    """

    bundle: ModelSource
    build_before: BuildBefore | None
    scratch: Path


class Sides:
    """Opens the graphs. A merged one is as large as the base, so only one of them is open at a time."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._settings = SessionSettings(detect().cpu.physical_cores, spinning=False)  # PyTorch takes turns with it
        self._open = contextlib.ExitStack()
        external = tuple(adapter for adapter in graphs.bundle.adapters if adapter.mode == "external")
        source = replace(graphs.bundle, adapters=external)
        self._bundle = self._open.enter_context(open_engine(source, self._settings))
        self._before: Engine | None = None
        if graphs.build_before:
            folder = self._open.enter_context(self._built(graphs.build_before, None))
            before = replace(source, folder=folder)
            self._before = self._open.enter_context(open_engine(before, self._settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextlib.contextmanager
    def under(self, adapter: str | None) -> Iterator[tuple[Engine, Engine | None]]:
        """(bundle, before quantization or None), each with the adapter in use and nothing read yet."""
        source = self._graphs.bundle
        if adapter is not None and source.adapter(adapter).mode == "merged":
            with self._merged(source.adapter(adapter)) as engines:
                yield engines
            return
        for engine in filter(None, (self._bundle, self._before)):
            engine.use(adapter)
        yield self._bundle, self._before

    @contextlib.contextmanager
    def _merged(self, adapter: AdapterSource) -> Iterator[tuple[Engine, Engine | None]]:
        with contextlib.ExitStack() as stack:
            found = [adapter]
            if self._graphs.build_before:
                folder = stack.enter_context(self._built(self._graphs.build_before, adapter.name))
                found.append(replace(adapter, path=folder))
            sources = (replace(self._graphs.bundle, adapters=(each,)) for each in found)
            bundle, *before = (stack.enter_context(open_engine(source, self._settings)) for source in sources)
            for engine in (bundle, *before):
                engine.use(adapter.name)
            yield bundle, before[0] if before else None

    @contextlib.contextmanager
    def _built(self, build: BuildBefore, adapter: str | None) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=".before.", dir=self._graphs.scratch) as folder:
            build(Path(folder) / "model", adapter)
            yield Path(folder) / "model"
