"""The architectures that can be exported, and all that the export knows of each: one row.

onnxruntime-genai's builder makes their graphs, and these are exact: tests/export/base/test_architectures.py has a row
for each, with adapters on every module. Other architectures, and why they are refused, stand in docs/limits.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import transformers

from dualtune_edge.toolkit.errors import CheckpointError

_DEFAULT: Final = frozenset({"rope_theta"})
_LLAMA3: Final = _DEFAULT | {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
_LONGROPE: Final = _DEFAULT | {
    "short_factor",
    "long_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
}
# A rotary embedding's type → its parameters. The builder ignores any other, which would change the angles.
_ROPE: Final = {"default": _DEFAULT, "llama3": _LLAMA3, "longrope": _LONGROPE}
_ACTIVATIONS: Final = ("silu", "gelu_pytorch_tanh")
# Which channels of a head turn together: channel i and i + half, or 2i and 2i + 1.
RotaryPairs: TypeAlias = Literal["halves", "neighbours"]


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, and what of it the export computes exactly."""

    name: str
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
    Architecture("Ernie4_5ForCausalLM", ("ErnieModel",), rotary_pairs="neighbours"),
    Architecture("Gemma2ForCausalLM", ("Gemma2Model",), windows=True, scaled_embedding=True),
    Architecture(
        "Gemma3ForCausalLM", ("Gemma3Model",), windows=True, qk_norm=True, scaled_embedding=True, optimum=True
    ),
    Architecture("GemmaForCausalLM", ("GemmaModel",), scaled_embedding=True, optimum=True),
    Architecture("GraniteForCausalLM", ("GraniteModel",)),
    Architecture("LlamaForCausalLM", ("LlamaModel",), rope=("default", "llama3"), optimum=True, static=True),
    Architecture("MistralForCausalLM", ("MistralModel",), windows=True, optimum=True, static=True),
    Architecture(
        "Phi3ForCausalLM",
        ("Phi3MiniModel", "Phi3MiniLongRoPEModel"),
        rope=("default", "longrope"),
        windows=True,
        packed=True,
        optimum=True,
    ),
    Architecture("Qwen2ForCausalLM", ("QwenModel",), windows=True, optimum=True, static=True),
    Architecture("Qwen3ForCausalLM", ("Qwen3Model",), windows=True, qk_norm=True, optimum=True, static=True),
    Architecture("SmolLM3ForCausalLM", ("SmolLM3Model",), rope=("default", "llama3"), windows=True, optimum=True),
)
ARCHITECTURES: Final = {row.name: row for row in _ROWS}


def supported(where: str, names: Any) -> Architecture:
    """The one architecture that config.json names.

    Args:
        where: the field, for an error.
        names: its value.

    Raises:
        CheckpointError: it names another one, or several.

    """
    if isinstance(names, list) and len(names) == 1 and names[0] in ARCHITECTURES:
        return ARCHITECTURES[names[0]]
    raise CheckpointError(
        f"{where}, architectures",
        found=repr(names),
        expected=f"one of {', '.join(ARCHITECTURES)}",
        fix="Choose a base of a supported architecture; docs/limits.md says why others are not.",
    )


def refuse_variants(where: str, architecture: Architecture, config: transformers.PretrainedConfig) -> None:
    """Refuse a config for which the graph would compute other logits than transformers.

    Raises:
        CheckpointError: names the field of config.json.

    """
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise CheckpointError(
            f"{where}, quantization_config",
            found=f"weights quantized by {str(method)!r}",
            expected="unquantized weights",
            fix="Name the checkpoint that was quantized: the export quantizes it, as `quantization:` says.",
        )
    # Gemmas have two fields, of which transformers and the builder may read different ones.
    names = {getattr(config, field, None) for field in ("hidden_act", "hidden_activation")} - {None}
    activation = names.pop() if len(names) == 1 else tuple(sorted(map(str, names)))
    faults = {
        "hidden_act": (None if activation in _ACTIVATIONS else activation, " or ".join(map(repr, _ACTIVATIONS))),
        "use_bidirectional_attention": (getattr(config, "use_bidirectional_attention", None) or None, "causal layers"),
        "sliding_window": (
            None if architecture.windows else getattr(config, "sliding_window", None),
            "full attention in every layer",
        ),
        **_rope_faults(architecture, config),
    }
    for field, (found, expected) in faults.items():
        if found is not None:
            raise CheckpointError(
                f"{where}, {field}",
                found=repr(found),
                expected=expected,
                fix="Choose another base; this one's mathematics is not supported.",
            )


def exact_context(config: transformers.PretrainedConfig) -> int:
    """The number of tokens for which the graph is exact.

    With long RoPE the angles of all tokens change once the sequence is longer than the original context, and keys in
    the cache would be wrong. So the context ends there.
    """
    if rope_parameters(config)[0].get("rope_type") == "longrope":
        return int(original_context(config))
    return int(config.max_position_embeddings)


def original_context(config: transformers.PretrainedConfig) -> int:
    """The context that long RoPE's short factors are for, in tokens."""
    context = rope_parameters(config)[0].get("original_max_position_embeddings")
    return int(context or getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings)


def rope_parameters(config: transformers.PretrainedConfig) -> list[dict[str, Any]]:
    """The rotary embedding's parameters: one set, or one for each type of layer, that of full attention first."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "full_attention" not in parameters:
        return [parameters]
    return [parameters[kind] for kind in sorted(parameters, key=lambda kind: (kind != "full_attention", kind))]


def rotary_partners(architecture: Architecture, config: transformers.PretrainedConfig, head_dim: int) -> list[int]:
    """The channel with which each channel of a head is rotated; -1: it is not rotated."""
    factor = rope_parameters(config)[0].get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None))
    width = int(head_dim * (1.0 if factor is None else factor))
    if architecture.rotary_pairs == "neighbours":
        rotated = [channel ^ 1 for channel in range(width)]
    else:
        rotated = [(channel + width // 2) % width for channel in range(width)]
    return rotated + [-1] * (head_dim - width)


def all_layers_slide(config: transformers.PretrainedConfig) -> bool:
    """Whether every layer attends to a sliding window because config.json names one and no types of layers."""
    return getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None) is not None


def _rope_faults(architecture: Architecture, config: transformers.PretrainedConfig) -> dict[str, tuple[Any, str]]:
    faults: dict[str, tuple[Any, str]] = {}
    for parameters in rope_parameters(config):
        kind = parameters.get("rope_type", "default")
        if kind not in architecture.rope:
            faults["rope_parameters.rope_type"] = (kind, " or ".join(map(repr, architecture.rope)))
            break
        for key, value in parameters.items():
            whole_head = key == "partial_rotary_factor" and value == 1.0
            if key not in {"rope_type", "type", *_ROPE[kind]} and value is not None and not whole_head:
                faults[f"rope_parameters.{key}"] = (value, f"none with rope_type {kind!r}")
    return faults
