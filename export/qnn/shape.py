"""The sizes of a decoder in a static graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualtune_edge.export.base.architectures import ARCHITECTURES, all_layers_slide, rope_parameters
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.toolkit.errors import CheckpointError


@dataclass(frozen=True)
class DecoderShape:
    """A decoder with rotary positions, grouped queries and a gated MLP. Its weights say which biases it has."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    epsilon: float  # of every RMSNorm
    theta: float  # the rotary embedding's base
    qk_norm: bool  # queries and keys are normed, head by head, before they are rotated

    @property
    def group(self) -> int:
        """The number of query heads that share one head of keys and values."""
        return self.heads // self.kv_heads


def decoder_shape(checkpoint: Checkpoint) -> DecoderShape:
    """The sizes of a checkpoint's decoder.

    Raises:
        CheckpointError: its architecture, or a field of its config, has no static graph.

    """
    where, architecture = str(checkpoint.folder / "config.json"), checkpoint.architecture
    if not architecture.static:
        names = ", ".join(name for name, row in ARCHITECTURES.items() if row.static)
        raise _unsupported(f"{where}, architectures", architecture.name, f"one of {names}")
    config = checkpoint.config
    rope = rope_parameters(config)[0]
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if windows or (all_layers_slide(config) and config.sliding_window < checkpoint.context_length):
        raise _unsupported(
            f"{where}, sliding_window", repr(config.sliding_window), "attention to all tokens in every layer"
        )
    if rope.get("rope_type", "default") != "default":
        raise _unsupported(f"{where}, rope_parameters", repr(rope["rope_type"]), "rope_type 'default'")
    if config.hidden_act != "silu":
        raise _unsupported(f"{where}, hidden_act", repr(config.hidden_act), "'silu'")
    return DecoderShape(
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=checkpoint.cache.head_dim,
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
        theta=float(rope["rope_theta"]),
        qk_norm=architecture.qk_norm,
    )


def _unsupported(where: str, found: Any, expected: str) -> CheckpointError:
    return CheckpointError(
        where, found=str(found), expected=f"{expected}, for a static graph", fix="Export without a profile for an NPU."
    )
