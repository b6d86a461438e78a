"""A model that is too large for a profile's memory budget is refused before it is built."""

from __future__ import annotations

from collections.abc import Sequence

from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.variants import ModelPlan, is_static
from dualtune_edge.export.sizes.files import adapter_bytes, base_shape, graph_bytes
from dualtune_edge.profiles.budget import over_budget
from dualtune_edge.profiles.schema import HardwareProfile
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.bundle.sharing import weight_bytes
from dualtune_edge.toolkit.errors import ProfileError


def refuse_over_budget(plans: Sequence[ModelPlan]) -> None:
    """Refuse models beyond a profile's memory budget, by shapes alone, before anything is built.

    Static graphs are left to their exporter.

    Raises:
        ProfileError: with the size that the weights will have.

    """
    for plan in plans:
        for profile in plan.profiles:
            if profile.memory_mb is None or is_static(plan):
                continue
            if size := over_budget(profile, planned_weights(plan.inputs)):
                raise _too_large(profile, plan.inputs, f"about {size}")


def refuse_built_over_budget(plans: Sequence[ModelPlan], manifest: Manifest) -> None:
    """Refuse built models beyond a profile's memory budget.

    Raises:
        ProfileError: with the size of the weights.

    """
    for plan in plans:
        for profile in plan.profiles:
            if size := over_budget(profile, weight_bytes(manifest, manifest.model(plan.name))):
                raise _too_large(profile, plan.inputs, size)


def _too_large(profile: HardwareProfile, inputs: Inputs, size: str) -> ProfileError:
    return ProfileError(
        f"profile {profile.name}",
        found=f"{inputs.checkpoint.name} with its adapters: {size}",
        expected="a model within the budget",
        fix="Take a smaller base, fewer bits, or external adapters instead of merged; or leave the profile out.",
    )


def planned_weights(inputs: Inputs) -> int:
    """Bytes of a model's graphs and external adapters, every file counted once."""
    base = base_shape(inputs.checkpoint)
    graph = graph_bytes(base, inputs.quantization) - 2 * base.texts
    files = {bundled.path: bundled.adapter for bundled in inputs.bundled_adapters}
    external = [adapter for adapter in files.values() if adapter.mode == "external"]
    adapters = sum(adapter_bytes(adapter.folder, inputs.checkpoint, base) for adapter in external)
    return graph * (1 + len(files) - len(external)) + adapters
