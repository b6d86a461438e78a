"""A base's config.json: which text model it describes, or the field for which no exact graph is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import AutoConfig, PretrainedConfig

from dualtune_edge.export.base.architectures import (
    ARCHITECTURES,
    COMPOSITES,
    Architecture,
    rope_parameters,
    rotary_width,
    text_architecture,
)
from dualtune_edge.export.base.tokenizer import read_json
from dualtune_edge.toolkit.errors import CheckpointError

CONFIG: Final = "config.json"
_ADAPTER: Final = "adapter_config.json"
_ROPE_THETA: Final = frozenset({"rope_theta"})
_CONTEXT: Final = "original_max_position_embeddings"
# A rotary embedding's type → its parameters. The builder ignores any other, which would change the angles.
_ROPE: Final = {
    "default": _ROPE_THETA,
    "llama3": _ROPE_THETA | {"factor", "low_freq_factor", "high_freq_factor", _CONTEXT},
    "longrope": _ROPE_THETA | {"short_factor", "long_factor", _CONTEXT, "partial_rotary_factor"},
}
_ACTIVATIONS: Final = ("silu", "gelu_pytorch_tanh")
# Of text alone every token has one position, which all sections share.
_IMAGE_ROPE: Final = ("mrope_section", "mrope_interleaved")
# The largest numbers that are read. Published models have at most 126 layers, and 10,485,760 tokens of context.
_CAPS: Final = {
    "head_dim": 1 << 10,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 24,
    "num_attention_heads": 1 << 10,
    "num_hidden_layers": 1 << 10,
    "num_key_value_heads": 1 << 10,
    "vocab_size": 1 << 22,
}
_HEAD_STEP: Final = 16  # onnxruntime's attention takes heads, and rotated parts of heads, of multiples of this


@dataclass(frozen=True)
class ModelConfig:
    """What config.json says of the text model."""

    architecture: Architecture
    config: PretrainedConfig  # the text model's; whoever changes it takes a copy
    values: dict[str, Any]  # config.json as it stands
    composite: str | None  # the class of the whole model that the text model is part of

    @property
    def head_dim(self) -> int:
        """The number of values in a head."""
        return head_dim(self.config)


def head_dim(config: PretrainedConfig) -> int:
    """The number of values in a head of attention."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def read_model_config(folder: Path) -> ModelConfig:
    """Read config.json, and refuse by its field what no exact graph is known for.

    Raises:
        CheckpointError: the file is missing or damaged, or names an architecture, a size or a variant that is not
            supported.

    """
    where = str(folder / CONFIG)
    _refuse_others(folder)
    read = values = read_json(folder / CONFIG)
    _refuse_quantized(where, values)
    _check_sizes(where, values)  # before transformers makes anything of them
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) else None
    if name in COMPOSITES:
        text = values.get("text_config")
        if isinstance(text, dict):
            _check_sizes(f"{where}, text_config", text)
        architecture, config = _text_model(where, _read_config(folder), name)
        where, values = f"{where}, text_config", text if isinstance(text, dict) else values
    elif name in ARCHITECTURES:
        architecture, config = ARCHITECTURES[name], _read_config(folder)
    else:
        raise _unsupported(where, names)
    _check_sizes(where, vars(config))
    _refuse_variants(where, architecture, config)
    _check_heads(where, config, stated=values.get("head_dim") is not None)
    config.architectures = [architecture.name]
    return ModelConfig(architecture, config, read, name if name in COMPOSITES else None)


def exact_context(config: PretrainedConfig) -> int:
    """The number of tokens for which the graph is exact.

    With long RoPE the angles of all tokens change once the sequence is longer than the original context, and keys in
    the cache would be wrong. So the context ends there.
    """
    if rope_parameters(config)[0].get("rope_type") == "longrope":
        return original_context(config)
    return int(config.max_position_embeddings)


def original_context(config: PretrainedConfig) -> int:
    """The context that long RoPE's short factors are for, in tokens."""
    context = rope_parameters(config)[0].get(_CONTEXT) or getattr(config, _CONTEXT, None)
    return int(context or config.max_position_embeddings)


def _refuse_others(folder: Path) -> None:
    """Refuse a folder that holds something else, or the model in a folder below, by what it holds."""
    if not folder.is_dir() or (folder / CONFIG).exists() or (folder / CONFIG).is_symlink():
        return  # its own error says more
    inner = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if inner:
        found, fix = f"no {CONFIG}, and models in folders below", f"Name one of these: {', '.join(inner[:5])}."
    elif (folder / _ADAPTER).is_file():
        found, fix = "an adapter", "Name the base that it was trained on; adapters have keys of their own in the spec."
    elif gguf := next(folder.glob("*.gguf"), None):
        found, fix = f"{gguf.name}, which is not read", "Name the model of which it was made, in safetensors."
    else:
        return
    raise CheckpointError(str(folder), found=found, expected="a Hugging Face model folder", fix=fix)


def _read_config(folder: Path) -> PretrainedConfig:
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - transformers raises what the values happen to break
        raise CheckpointError(
            str(folder / CONFIG),
            found=f"{type(error).__name__}: {error}",
            expected="a config that transformers reads",
            fix="Download or save the base again.",
        ) from None
    config._attn_implementation = None  # noqa: SLF001 - the trainer's kernel is not installed here; all give one result
    return config


def _text_model(where: str, whole: PretrainedConfig, name: str) -> tuple[Architecture, PretrainedConfig]:
    """The architecture and config of the text model inside a composite one, which shares its tied tables."""
    text = whole.get_text_config(decoder=True)
    architecture = text_architecture(text.model_type)
    if architecture is None or text is whole:
        raise CheckpointError(
            f"{where}, text_config.model_type",
            found=f"{text.model_type!r} in a {name}",
            expected=f"one of {', '.join(kind for row in ARCHITECTURES.values() for kind in row.text_types)}",
            fix="Choose a base of a supported architecture; docs/limits.md says why others are not.",
        )
    model_type = architecture.text_types[0]
    if text.model_type != model_type:
        fields = {key: value for key, value in text.to_dict().items() if key not in {"model_type", "architectures"}}
        fields["rope_parameters"] = {
            key: value for key, value in fields["rope_parameters"].items() if key not in _IMAGE_ROPE
        }
        text = AutoConfig.for_model(model_type, **fields)
    text.tie_word_embeddings = whole.tie_word_embeddings
    for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(text, field, None) is None:
            setattr(text, field, getattr(whole, field, None))
    return architecture, text


def _unsupported(where: str, names: object) -> CheckpointError:
    return CheckpointError(
        f"{where}, architectures",
        found=repr(names),
        expected=f"one of {', '.join((*ARCHITECTURES, *COMPOSITES))}",
        fix="Choose a base of a supported architecture; docs/limits.md says why others are not.",
    )


def _refuse_quantized(where: str, values: dict[str, Any]) -> None:
    quantized = values.get("quantization_config")
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise CheckpointError(
            f"{where}, quantization_config",
            found=f"weights quantized by {str(method)!r}",
            expected="unquantized weights",
            fix="Name the checkpoint that was quantized: the export quantizes it, as `quantization:` says.",
        )


def _check_sizes(where: str, values: Mapping[str, Any]) -> None:
    """Refuse sizes that no model has, before anything of that size is made."""
    for field, cap in _CAPS.items():
        value = values.get(field)
        if value is not None and (type(value) is not int or not 1 <= value <= cap):
            raise _refusal(f"{where}, {field}", repr(value), f"a whole number from 1 to {cap:,}")
    heads, kv_heads = values.get("num_attention_heads"), values.get("num_key_value_heads")
    if heads and kv_heads and heads % kv_heads:
        raise _refusal(f"{where}, num_key_value_heads", str(kv_heads), f"a divisor of num_attention_heads, {heads}")


def _check_heads(where: str, config: PretrainedConfig, *, stated: bool) -> None:
    """Refuse heads that onnxruntime's attention does not take."""
    size, width = head_dim(config), rotary_width(config, head_dim(config))
    if size % _HEAD_STEP:
        field = "head_dim" if stated else "hidden_size / num_attention_heads"
        raise _refusal(f"{where}, {field}", str(size), f"a multiple of {_HEAD_STEP}, as onnxruntime's attention takes")
    if width % _HEAD_STEP or not 0 < width <= size:
        raise _refusal(
            f"{where}, partial_rotary_factor",
            f"{width} of {size} values of a head rotated",
            f"a multiple of {_HEAD_STEP}, from {_HEAD_STEP} to {size}, as onnxruntime's attention takes",
        )


def _refuse_variants(where: str, architecture: Architecture, config: PretrainedConfig) -> None:
    """Refuse a config for which the graph would compute other logits than transformers."""
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
    for field, (value, expected) in faults.items():
        if value is not None:
            raise _refusal(f"{where}, {field}", repr(value), expected)


def _rope_faults(architecture: Architecture, config: PretrainedConfig) -> dict[str, tuple[Any, str]]:
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


def _refusal(where: str, found: str, expected: str) -> CheckpointError:
    return CheckpointError(
        where, found=found, expected=expected, fix="Choose another base; this one's mathematics is not supported."
    )
