"""What the prefix states need."""

from __future__ import annotations

from dualtune_edge.export.plan.subjects import subjects
from dualtune_edge.export.sizes.model import ModelSizes
from dualtune_edge.export.sizes.need import COMPARING, OPEN_SECONDS, ORT_SPEED, Need
from dualtune_edge.export.states.write import planned


def prefix_states(model: ModelSizes) -> Need | None:
    """To compute and write the prefix states, and to compare answers behind rounded ones."""
    lengths, size = planned(model.inputs, model.plans, model.spec)
    if not lengths:
        return None
    return Need(
        disk=size,
        memory=model.opened + COMPARING + model.running(model.longest_prefix),
        seconds=model.forward_seconds([*lengths, *[1] * _answered(model)], ORT_SPEED) + OPEN_SECONDS * model.graphs,
    )


def _answered(model: ModelSizes) -> int:
    """Tokens that are read behind rounded and exact states."""
    parity = model.spec.parity
    exact = model.spec.prefix_states_type == "float32" or model.inputs.kv_type == "int8"
    if parity is None or exact:
        return 0
    return 3 * len(subjects(model.plans, parity.prompts)) * parity.prompts * (parity.argument_tokens + 64)
