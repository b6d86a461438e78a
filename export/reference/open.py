"""The reference for an export: whole in memory where it is small, else read layer by layer."""

from __future__ import annotations

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.reference.first_layers import on_tables
from dualtune_edge.export.reference.streamed import LARGE, float32_bytes, streamed_model
from dualtune_edge.export.reference.torch_engine import TorchEngine


def open_reference(inputs: Inputs, base: Checkpoint) -> TorchEngine:
    """PyTorch and PEFT on the checkpoint, or on its first layers.

    Args:
        inputs: the checkpoint and the adapters.
        base: the checkpoint itself, or its `first_layers`.

    """
    checkpoint = inputs.checkpoint
    folders = {adapter.name: adapter.folder for adapter in inputs.adapters}
    if base.cache.layers == checkpoint.cache.layers and float32_bytes(checkpoint) <= LARGE:
        return TorchEngine(base, folders)
    whole_tables = any(on_tables(folder, checkpoint) for folder in folders.values())  # PEFT may read or copy them
    return TorchEngine(base, folders, model=streamed_model(base, whole_tables=whole_tables))
