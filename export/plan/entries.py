"""The manifest's entries that are known before anything is built, and what an engine opens by them."""

from __future__ import annotations

from pathlib import Path

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph
from dualtune_edge.toolkit.bundle.manifest import PRIMARY, BaseInfo, CacheShape, ModelEntry


def base_info(checkpoint: Checkpoint) -> BaseInfo:
    """The base model."""
    return BaseInfo(
        name=checkpoint.name,
        architecture=checkpoint.architecture.name,
        fingerprint=checkpoint.fingerprint,
        task=checkpoint.task,
        context_length=checkpoint.context_length,
        vocab_size=checkpoint.vocab_size,
        end_of_turn=checkpoint.end_of_turn,
    )


def dynamic_model(inputs: Inputs, cache: CacheShape, name: str = PRIMARY) -> ModelEntry:
    """A model with a dynamic graph, without prefix states.

    Args:
        inputs: what it is made of.
        cache: the KV cache of its graphs.
        name: its name in the bundle.

    """
    return ModelEntry(
        name=name,
        folder=inputs.layout.model,
        graph=DynamicGraph(),
        quantization=inputs.quantization,
        cache=cache,
        adapters=tuple(bundled.entry for bundled in inputs.bundled_adapters),
    )


def model_source(inputs: Inputs, folder: Path, entry: ModelEntry) -> ModelSource:
    """What an engine opens of a model whose bundle grows in `folder`."""
    return ModelSource.of(base_info(inputs.checkpoint), folder, entry)
