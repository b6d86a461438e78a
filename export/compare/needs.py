"""What the comparison with PEFT needs."""

from __future__ import annotations

from typing import Final

from dualtune_edge.export.build.needs import building_memory
from dualtune_edge.export.compare.bundle import depth_of
from dualtune_edge.export.plan.subjects import Subject, subjects
from dualtune_edge.export.sizes.files import BaseShape, graph_bytes
from dualtune_edge.export.sizes.model import ModelSizes
from dualtune_edge.export.sizes.need import (
    COMPARING,
    LIBRARIES,
    ORT_SPEED,
    QUANTIZE_SECONDS,
    READ_SECONDS,
    TORCH_SPEED,
    Need,
)
from dualtune_edge.export.spec.parts import ParitySpec
from dualtune_edge.toolkit.bundle.parity import Depth
from dualtune_edge.toolkit.bundle.quantization import Quantization

_WHOLE: Final = Quantization(bits=32)
_CHOICES: Final = 8  # forwards of a choice, and those in which the reference goes another way
_STAGE_SECONDS: Final = 0.2  # for a stage, whatever its prompts


def comparison(model: ModelSizes) -> Need | None:
    """Two passes, one after the other: on the bundle's graphs or their first layers, and before quantization."""
    parity = model.spec.parity
    if parity is None:
        return None
    depth = depth_of(model.inputs, parity)
    asked = subjects(model.plans, parity.prompts)
    return Need(
        scratch=_graphs_on_disk(model, depth) + _remembered(model, parity, asked),
        memory=_memory(model, parity, depth),
        seconds=_seconds(model, parity, depth, asked),
    )


def _shapes(model: ModelSizes, depth: Depth) -> tuple[BaseShape, BaseShape | None]:
    """The layers that are compared, and those compared before quantization in a second pass."""
    again = depth.before_quantization if model.inputs.quantization.bits != 32 else None
    return model.shape.first(depth.compared), model.shape.first(again) if again else None


def _graphs_on_disk(model: ModelSizes, depth: Depth) -> int:
    """Graphs that are built for the comparison alone: the base's and one of a merged adapter at a time."""
    compared, before = _shapes(model, depth)
    own, count = depth.compared == depth.layers, 1 + bool(model.merged)
    cut = 0 if own else count * graph_bytes(compared, model.inputs.quantization)
    whole = count * graph_bytes(before, _WHOLE, tied=model.one_table) if before else 0
    by_peft = any(not bundled.adapter.plain for bundled in model.merged) and (before or not own)
    return max(cut, whole) + (2 * 4 * model.shape.weights if by_peft else 0)


def _remembered(model: ModelSizes, parity: ParitySpec, asked: tuple[Subject, ...]) -> int:
    """Logits that are kept for the next recipe (`LogitsCache`)."""
    if model.recipes == 1:
        return 0
    positions = len(asked) * parity.prompts * (parity.argument_tokens + _CHOICES)
    return model.recipes * positions * 4 * model.inputs.checkpoint.vocab_size


def _memory(model: ModelSizes, parity: ParitySpec, depth: Depth) -> int:
    compared, before = _shapes(model, depth)
    tokens = model.longest_prefix + parity.argument_tokens + 512  # a message, and what is written
    reference = model.reference(compared, tokens)
    passes = [model.packed(compared, tied=model.one_table) + reference]
    if before:  # its weights are mapped from the file; the reference reads once more where depths differ
        whole = graph_bytes(before, _WHOLE, tied=model.one_table)
        mapped = min(whole, graph_bytes(before, _WHOLE, tied=True) + model.rows) + model.adapter_memory
        passes.append(mapped + (reference if before.layers != compared.layers or not model.streamed else 0))
    if before or depth.compared != depth.layers:
        passes.append(building_memory(model) - LIBRARIES)
    return LIBRARIES + COMPARING + model.largest_adapter + max(passes) + model.running(tokens)


def _seconds(model: ModelSizes, parity: ParitySpec, depth: Depth, asked: tuple[Subject, ...]) -> float:
    compared, before = _shapes(model, depth)
    lengths = [len(subject.stage.plan.prefix) + parity.prompts * (parity.argument_tokens + 64) for subject in asked]
    forwards = model.forward_seconds(lengths, ORT_SPEED) + model.forward_seconds(lengths, TORCH_SPEED)
    streamed = READ_SECONDS * model.shape.stored * len(asked) * parity.prompts * 2 if model.streamed else 0.0
    share = (depth.compared + (before.layers if before else 0)) / depth.layers
    built = (0 if depth.compared == depth.layers else compared.weights) + (before.weights if before else 0)
    calibration = 1 if parity.calibration is None else 3
    return calibration * share * (forwards + streamed) + _STAGE_SECONDS * len(asked) + QUANTIZE_SECONDS * built
