"""What an engine opens: the graph and the adapters of one model of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dualtune_edge.toolkit.bundle.adapters import AdapterEntry, AdapterIdentity
from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph, GraphForm
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.bundle.manifest import BaseInfo, ContextBinary, FileEntry, ModelEntry
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import EngineError


class AdapterSource(AdapterIdentity):
    """An adapter on this machine: `path` is the .onnx_adapter file (external) or the graph's folder (merged)."""

    path: Path

    @classmethod
    def of(cls, entry: AdapterEntry, root: Path) -> AdapterSource:
        """An adapter of the bundle in the folder `root`."""
        return cls.model_validate({**dict(entry), "path": root / entry.path})


@dataclass(frozen=True)
class ModelSource:
    """All that an engine needs to know of a bundle: `folder` holds the base graph, `fingerprint` names the base.

    `graph` is the form of all graphs; the files in a folder are `graph.files`.
    """

    folder: Path
    fingerprint: str
    cache: CacheShape
    vocab_size: int
    context_length: int
    adapters: tuple[AdapterSource, ...] = ()
    int8_activations: bool = True  # accuracy level 4: an option of providers that do not read the level from the graph
    graph: GraphForm = field(default_factory=DynamicGraph)
    contexts: tuple[ContextBinary, ...] = ()  # `path` below `root`
    root: Path = Path()  # the bundle's folder
    hashes: Mapping[Path, str] = field(default_factory=dict)  # SHA-256 of files that were verified

    @classmethod
    def of(cls, base: BaseInfo, root: Path, entry: ModelEntry, files: Iterable[FileEntry] = ()) -> ModelSource:
        """A model of a bundle.

        Args:
            base: the base model.
            root: the bundle's folder.
            entry: the model.
            files: those that were verified.

        """
        quantization = entry.quantization
        return cls(
            folder=root / entry.folder,
            fingerprint=base.fingerprint,
            cache=entry.cache,
            vocab_size=base.vocab_size,
            context_length=base.context_length,
            adapters=tuple(AdapterSource.of(adapter, root) for adapter in entry.adapters),
            int8_activations=isinstance(quantization, Quantization) and quantization.accuracy_level == 4,
            graph=entry.graph,
            contexts=entry.contexts,
            root=root,
            hashes={root / file.path: file.sha256 for file in files},
        )

    def adapter(self, name: str) -> AdapterSource:
        """The adapter of that name.

        Raises:
            EngineError: there is none.

        """
        for adapter in self.adapters:
            if adapter.name == name:
                return adapter
        names = ", ".join(adapter.name for adapter in self.adapters) or "no adapter"
        raise EngineError("adapter", found=repr(name), expected=names, fix="Use an adapter of this bundle.")

    def invocation(self, adapter: str | None) -> tuple[int, ...] | None:
        """The tokens from which an activated adapter is in force; None for the base and for plain adapters."""
        return None if adapter is None else self.adapter(adapter).invocation

    def prefix_adapter(self, adapter: str | None) -> str | None:
        """The adapter that computes a static prefix: the base, where the adapter is activated behind it."""
        return None if self.invocation(adapter) else adapter

    def identity(self, adapter: str | None) -> str:
        """What KV values depend on besides the tokens: the base's fingerprint, the adapter's mode and content hash.

        In int8 also the scales: the same numbers on others would be other values.
        """
        base = f"{self.fingerprint}/{self.cache.scales}" if self.cache.scales else self.fingerprint
        if adapter is None:
            return f"{base}/base"
        used = self.adapter(adapter)
        return f"{base}/{used.mode}/{used.sha256}"
