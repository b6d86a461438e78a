"""What the phases of a build need."""

from __future__ import annotations

from typing import Final

from dualtune_edge.export.build.input_moments import REACH
from dualtune_edge.export.sizes.files import adapter_stored, graph_bytes
from dualtune_edge.export.sizes.model import ModelSizes
from dualtune_edge.export.sizes.need import (
    ADAPTER_SECONDS,
    COMPARING,
    GPTQ_SECONDS,
    LIBRARIES,
    MB,
    OPEN_SECONDS,
    QUANTIZE_SECONDS,
    READ_SECONDS,
    TORCH_SPEED,
    Need,
)

_BUILDER: Final = 80 * MB  # memory besides the libraries
_PIECE: Final = 1 << 22  # numbers of a weight that are quantized at a time,
_QUANTIZING: Final = {"default": 16, "rtn": 100, "k_quant": 110, "gptq": 60}  # in so many bytes each
_JOINING: Final = 4.5  # bytes for each number of the largest matrix, while its quantized pieces are joined
_SUM_SECONDS: Final = 1.0e-9  # for a number of the moments of a prompt
_START_SECONDS: Final = 3.0
_WRITE_SECONDS: Final = 1.0e-8  # for a byte of an adapter, from PEFT's form to ours


def reading(model: ModelSizes) -> Need:
    """To read and check the base and the adapters."""
    adapters = (*model.external, *model.merged)
    read = model.shape.stored + sum(
        adapter_stored(bundled.adapter.folder, model.inputs.checkpoint) for bundled in adapters
    )
    return Need(memory=LIBRARIES, seconds=_START_SECONDS + READ_SECONDS * read + ADAPTER_SECONDS * len(adapters))


def kv_scales(model: ModelSizes) -> Need | None:
    """To measure the KV scales: the reference reads two prompts of each stage, the second from the tool list on."""
    if model.inputs.kv_type != "int8":
        return None
    tokens = model.longest_prefix + 512
    lengths = [len(stage.plan.prefix) + 256 for stage in model.plans.stages]
    streamed = READ_SECONDS * model.shape.stored * 2 * len(lengths) if model.streamed else 0.0
    return Need(
        memory=LIBRARIES
        + COMPARING
        + model.reference(model.shape, tokens)
        + 5 * model.token_kv * tokens,  # the cache, and what is made of it: stacked, and by pairs
        seconds=model.forward_seconds(lengths, TORCH_SPEED) + streamed,
    )


def input_moments(model: ModelSizes) -> Need | None:
    """To measure the inputs: the reference reads two prompts of each stage, the second from the tool list on."""
    if model.inputs.quantization.algorithm != "gptq":
        return None
    tokens = model.longest_prefix + 512
    lengths = [len(stage.plan.prefix) + 256 for stage in model.plans.stages]
    streamed = READ_SECONDS * model.shape.stored * 2 * len(lengths) if model.streamed else 0.0
    numbers = sum(REACH * inputs for _outputs, inputs in model.shape.linear)
    summed = 4 * len(lengths) * numbers
    return Need(
        scratch=4 * numbers,
        memory=LIBRARIES + COMPARING + model.reference(model.shape, tokens) + model.token_kv * tokens + 2 * 4 * numbers,
        seconds=model.forward_seconds(lengths, TORCH_SPEED) + streamed + 2 * _SUM_SECONDS * summed,
    )


def base_graph(model: ModelSizes) -> Need | None:
    """To build the base's graph."""
    if model.inputs.layout.model in model.present:
        return None
    return Need(disk=model.graph, memory=building_memory(model), seconds=quantize_seconds(model))


def adapter_files(model: ModelSizes) -> Need | None:
    """To write the external adapters."""
    sizes = [model.adapter_file(bundled) for bundled in model.written(model.external)]
    if not sizes:
        return None
    return Need(
        disk=sum(sizes),
        memory=LIBRARIES + 3 * max(sizes),
        seconds=_WRITE_SECONDS * sum(sizes) + ADAPTER_SECONDS * len(sizes),
    )


def merged_graphs(model: ModelSizes) -> Need | None:
    """To fold adapters into the base, and build a graph for each."""
    merged = model.written(model.merged)
    if not merged:
        return None
    shape, quantization = model.shape, model.inputs.quantization
    by_peft = any(not bundled.adapter.plain for bundled in merged)
    matrices = (*shape.linear, shape.table) if by_peft else shape.linear
    folding = 12 * max(n * k for n, k in matrices)
    whole = 4 * 4 * shape.weights if by_peft else 0  # the model in float32, and what safe_merge copies
    return Need(
        disk=sum(graph_bytes(shape, quantization, tied=model.stays_tied(bundled)) for bundled in merged),
        scratch=2 * 4 * shape.weights if by_peft else 0,
        memory=max(building_memory(model) + folding, LIBRARIES + whole),
        seconds=len(merged) * quantize_seconds(model),
    )


def trial(model: ModelSizes) -> Need:
    """To open every graph, and run a forward under every adapter."""
    return Need(memory=model.opened + model.adapter_memory, seconds=OPEN_SECONDS * model.graphs)


def quantize_seconds(model: ModelSizes) -> float:
    """Seconds to quantize all weights of the base."""
    each = GPTQ_SECONDS if model.inputs.quantization.algorithm == "gptq" else QUANTIZE_SECONDS
    return each * model.shape.weights


def building_memory(model: ModelSizes) -> int:
    """Memory while a graph is built."""
    largest = max(n * k for n, k in (*model.shape.linear, model.shape.table))
    piece = _QUANTIZING[model.inputs.quantization.algorithm] * min(largest, _PIECE)
    return LIBRARIES + _BUILDER + piece + int(_JOINING * largest)
