"""Where in the bundle the files of a model go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

from dualtune_edge.export.plan.toolsets import AdapterInput
from dualtune_edge.toolkit.bundle.adapters import AdapterEntry, Mode
from dualtune_edge.toolkit.bundle.layout import ADAPTERS_DIR, MERGED_DIR, MODEL_DIR, STATES_DIR
from dualtune_edge.toolkit.bundle.parity import PARITY
from dualtune_edge.toolkit.files import safe_name


@dataclass(frozen=True)
class ModelLayout:
    """Folders of one model in the bundle, and the file of its comparison with PEFT."""

    model: str = MODEL_DIR
    adapters: str = ADAPTERS_DIR
    merged: str = MERGED_DIR
    states: str = STATES_DIR
    parity: str = PARITY

    @classmethod
    def below(cls, folder: str) -> ModelLayout:
        """The same names in a folder of one model."""
        return cls(*(f"{folder}/{name}" for name in astuple(cls())))


@dataclass(frozen=True)
class BundledAdapter:
    """An adapter and its path in the bundle."""

    adapter: AdapterInput
    path: str

    @property
    def entry(self) -> AdapterEntry:
        """Its entry in the manifest."""
        return AdapterEntry.of(self.adapter, self.path)


def bundled_adapters(adapters: Iterable[AdapterInput], layout: ModelLayout) -> Iterator[BundledAdapter]:
    """Every adapter with its path. Adapters of equal content and mode share a file."""
    paths: dict[tuple[str, Mode], str] = {}
    for adapter in adapters:
        name = safe_name(adapter.name)
        path = f"{layout.merged}/{name}" if adapter.mode == "merged" else f"{layout.adapters}/{name}.onnx_adapter"
        yield BundledAdapter(adapter, paths.setdefault((adapter.sha256, adapter.mode), path))
