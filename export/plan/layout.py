"""Where in the bundle each adapter goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.toolsets import AdapterInput
from dualtune_edge.runtime.bundle.model_source import AdapterSource, ModelSource
from dualtune_edge.toolkit.bundle.manifest import AdapterEntry, CacheShape, Mode
from dualtune_edge.toolkit.files import safe_name


@dataclass(frozen=True)
class Placed:
    """An adapter and where in the bundle it goes. Stages with one adapter share its file."""

    source: AdapterInput
    path: str

    @property
    def entry(self) -> AdapterEntry:
        """As the manifest has it."""
        source = self.source
        return AdapterEntry(
            name=source.name,
            kind=source.kind,
            toolset=source.toolset,
            tool=source.tool,
            mode=source.mode,
            rank=source.rank,
            scale=source.scale,
            sha256=source.sha256,
            path=self.path,
        )


def places(inputs: Inputs) -> Iterator[Placed]:
    """Every adapter with its place; equal ones share one."""
    by_content: dict[tuple[str, Mode], str] = {}
    for source in inputs.adapters:
        name = safe_name(source.name)
        place = inputs.place
        own = f"{place.merged}/{name}" if source.mode == "merged" else f"{place.adapters}/{name}.onnx_adapter"
        yield Placed(source, by_content.setdefault((source.sha256, source.mode), own))


def model_source(inputs: Inputs, folder: Path, cache: CacheShape) -> ModelSource:
    """What an engine opens of a model whose bundle grows in `folder`."""
    checkpoint = inputs.checkpoint
    return ModelSource(
        folder=folder / inputs.place.model,
        fingerprint=checkpoint.fingerprint,
        cache=cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=tuple(
            AdapterSource(each.source.name, each.source.mode, folder / each.path, each.source.sha256)
            for each in places(inputs)
        ),
    )
