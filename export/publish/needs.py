"""What the bundle's own files need."""

from __future__ import annotations

from dualtune_edge.export.sizes.model import ModelSizes
from dualtune_edge.export.sizes.need import READ_SECONDS, Need


def manifest(model: ModelSizes) -> Need:
    """To write prompts, manifest and journal, which hold the texts of the tools once a stage, and hash the graphs."""
    plans = [len(stage.plan.model_dump_json()) for stage in model.plans.stages]
    disk = 2 * sum(plans) + 6_000 * len(plans) + 4_000 * model.shape.layers + 200_000
    return Need(disk=disk, seconds=READ_SECONDS * model.graphs)
