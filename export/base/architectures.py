"""The architectures that can be exported, and all that the export knows of each: one row.

onnxruntime-genai's builder makes their graphs, and these are exact: tests/export/base/test_architectures.py has a row
for each, with adapters on every module. Other architectures, and why they are refused, stand in docs/limits.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import transformers

# Which channels of a head turn together: channel i and i + half, or 2i and 2i + 1.
RotaryPairs: TypeAlias = Literal["halves", "neighbours"]


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, and what of it the export computes exactly."""

    name: str
    text_types: tuple[str, ...]  # model types of the configs that it computes
    builders: tuple[str, ...]  # classes of onnxruntime_genai.models.builders, one of which makes the graph
    rope: tuple[str, ...] = ("default",)  # types of rotary embedding
    rotary_pairs: RotaryPairs = "halves"
    windows: bool = False  # some or all layers may attend to a sliding window
    packed: bool = False  # one module for q, k and v, and one for gate and up
    qk_norm: bool = False  # queries and keys are normed head by head, before they are rotated
    scaled_embedding: bool = False  # by the root of the hidden size
    optimum: bool = False  # export/optimum reads Optimum's graph of it
    static: bool = False  # export/qnn writes a static graph of it


_ROWS: Final = (
    Architecture("Ernie4_5ForCausalLM", ("ernie4_5",), ("ErnieModel",), rotary_pairs="neighbours"),
    Architecture("Gemma2ForCausalLM", ("gemma2",), ("Gemma2Model",), windows=True, scaled_embedding=True),
    Architecture(
        "Gemma3ForCausalLM",
        ("gemma3_text",),
        ("Gemma3Model",),
        windows=True,
        qk_norm=True,
        scaled_embedding=True,
        optimum=True,
    ),
    Architecture("GemmaForCausalLM", ("gemma",), ("GemmaModel",), scaled_embedding=True, optimum=True),
    Architecture("GraniteForCausalLM", ("granite",), ("GraniteModel",)),
    Architecture(
        "LlamaForCausalLM", ("llama",), ("LlamaModel",), rope=("default", "llama3"), optimum=True, static=True
    ),
    Architecture("MistralForCausalLM", ("mistral",), ("MistralModel",), windows=True, optimum=True, static=True),
    Architecture(
        "Phi3ForCausalLM",
        ("phi3",),
        ("Phi3MiniModel", "Phi3MiniLongRoPEModel"),
        rope=("default", "longrope"),
        windows=True,
        packed=True,
        optimum=True,
    ),
    Architecture(
        "Qwen2ForCausalLM",
        ("qwen2", "qwen2_vl_text", "qwen2_5_vl_text"),
        ("QwenModel",),
        windows=True,
        optimum=True,
        static=True,
    ),
    Architecture(
        "Qwen3ForCausalLM",
        ("qwen3", "qwen3_vl_text"),
        ("Qwen3Model",),
        windows=True,
        qk_norm=True,
        optimum=True,
        static=True,
    ),
    Architecture(
        "SmolLM3ForCausalLM", ("smollm3",), ("SmolLM3Model",), rope=("default", "llama3"), windows=True, optimum=True
    ),
)
ARCHITECTURES: Final = {row.name: row for row in _ROWS}
# Models with images whose text model is one of these, and computes text without images alone as the whole model does.
COMPOSITES: Final = (
    "Gemma3ForConditionalGeneration",
    "Idefics3ForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
)


def text_architecture(model_type: str) -> Architecture | None:
    """The architecture that computes the text model of this type; None: none in the table does."""
    return next((row for row in _ROWS if model_type in row.text_types), None)


def rope_parameters(config: transformers.PretrainedConfig) -> list[dict[str, Any]]:
    """The rotary embedding's parameters: one set, or one for each type of layer, that of full attention first."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "full_attention" not in parameters:
        return [parameters]
    return [parameters[kind] for kind in sorted(parameters, key=lambda kind: (kind != "full_attention", kind))]


def rotary_width(config: transformers.PretrainedConfig, head_dim: int) -> int:
    """The number of values of a head that are rotated, the first ones."""
    factor = rope_parameters(config)[0].get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    return int(head_dim * (1.0 if factor is None else factor))


def rotary_partners(architecture: Architecture, config: transformers.PretrainedConfig, head_dim: int) -> list[int]:
    """The channel with which each channel of a head is rotated; -1: it is not rotated."""
    width = rotary_width(config, head_dim)
    if architecture.rotary_pairs == "neighbours":
        rotated = [channel ^ 1 for channel in range(width)]
    else:
        rotated = [(channel + width // 2) % width for channel in range(width)]
    return rotated + [-1] * (head_dim - width)


def all_layers_slide(config: transformers.PretrainedConfig) -> bool:
    """Whether every layer attends to a sliding window because config.json names one and no types of layers."""
    return getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None) is not None
