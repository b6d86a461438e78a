"""The architectures that can be exported: those that onnxruntime-genai's builder knows and whose graphs are exact.

Each row is proved by tests/export/base/test_architectures.py, with adapters on every module. What the
builder knows and gets wrong is in docs/limits.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

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
# A rotary embedding's type → what it may say. Another parameter would change the angles behind the builder's back.
_ROPE: Final = {"default": _DEFAULT, "llama3": _LLAMA3, "longrope": _LONGROPE}
_ACTIVATIONS: Final = ("silu", "gelu_pytorch_tanh")


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, and what of it the graph computes exactly."""

    name: str
    rope: tuple[str, ...] = ("default",)
    windows: bool = False  # some or all layers may attend to a sliding window
    packed: bool = False  # one module for q, k and v, and one for gate and up


ARCHITECTURES: Final = {
    each.name: each
    for each in (
        Architecture("Ernie4_5ForCausalLM"),
        Architecture("Gemma2ForCausalLM", windows=True),
        Architecture("Gemma3ForCausalLM", windows=True),
        Architecture("GemmaForCausalLM"),
        Architecture("GraniteForCausalLM"),
        Architecture("LlamaForCausalLM", rope=("default", "llama3")),
        Architecture("MistralForCausalLM", windows=True),
        Architecture("Phi3ForCausalLM", rope=("default", "longrope"), windows=True, packed=True),
        Architecture("Qwen2ForCausalLM", windows=True),
        Architecture("Qwen3ForCausalLM", windows=True),
        Architecture("SmolLM3ForCausalLM", rope=("default", "llama3"), windows=True),
    )
}


def supported(where: str, found: Any) -> Architecture:
    """The one architecture that config.json names.

    Raises:
        CheckpointError: it names another one, or several.

    """
    if isinstance(found, list) and len(found) == 1 and found[0] in ARCHITECTURES:
        return ARCHITECTURES[found[0]]
    raise CheckpointError(
        f"{where}, architectures",
        found=repr(found),
        expected=f"one of {', '.join(ARCHITECTURES)}",
        fix="Choose a base of a supported architecture; docs/limits.md says why others are not.",
    )


def refuse_variants(where: str, architecture: Architecture, config: transformers.PretrainedConfig) -> None:
    """Refuse what the graph would compute otherwise than transformers.

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
    """How many tokens the graph can hold exactly.

    With long RoPE the angles of all tokens depend on whether the sequence is longer than the original context: beyond
    it keys that were computed before would have to be computed again. So it ends there.
    """
    if rope_parameters(config)[0].get("rope_type") == "longrope":
        return int(original_context(config))
    return int(config.max_position_embeddings)


def original_context(config: transformers.PretrainedConfig) -> int:
    """The context that long RoPE's short factors are for, in tokens."""
    own = rope_parameters(config)[0].get("original_max_position_embeddings")
    return int(own or getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings)


def rope_parameters(config: transformers.PretrainedConfig) -> list[dict[str, Any]]:
    """The rotary embedding's parameters: one set, or one for each type of layer, the full ones first."""
    given = getattr(config, "rope_parameters", None) or {}
    if "full_attention" in given:
        return [given["full_attention"], *(given[kind] for kind in sorted(given) if kind != "full_attention")]
    return [given]


def _rope_faults(architecture: Architecture, config: transformers.PretrainedConfig) -> dict[str, tuple[Any, str]]:
    faults: dict[str, tuple[Any, str]] = {}
    for given in rope_parameters(config):
        kind = given.get("rope_type", "default")
        if kind not in architecture.rope:
            faults["rope_parameters.rope_type"] = (kind, " or ".join(map(repr, architecture.rope)))
            break
        for key, value in given.items():
            whole_head = key == "partial_rotary_factor" and value == 1.0
            if key not in {"rope_type", "type", *_ROPE[kind]} and value is not None and not whole_head:
                faults[f"rope_parameters.{key}"] = (value, f"none with rope_type {kind!r}")
    return faults
