"""Prompts that a model is measured on before it is built."""

from __future__ import annotations

from typing import TypeAlias

from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.messages import calibration_prompts
from dualtune_edge.export.plan.prompts import Plans

MeasuredPrompt: TypeAlias = tuple[str | None, tuple[int, ...]]  # an adapter (None: the base), and its tokens


def measured_prompts(inputs: Inputs, plans: Plans) -> tuple[MeasuredPrompt, ...]:
    """Two prompts of each stage, each with the beginning of an answer; none where nothing is measured."""
    if inputs.kv_type != "int8" and inputs.quantization.algorithm != "gptq":
        return ()
    return tuple(
        (stage.adapter_name, tokens)
        for stage in plans.stages
        for tokens in calibration_prompts(inputs.checkpoint, plans, [stage])
    )
