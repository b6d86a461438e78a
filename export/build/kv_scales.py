"""Scales of a KV cache in int8: the largest keys and values of the model on prompts made from the tools.

The reference in float32 is measured, so that the scales do not depend on the quantization of the weights. All adapters
share one set, as they share the base's graph.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.base.architectures import rotary_partners
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.build.measured_prompts import MeasuredPrompt
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.reference.open import open_reference

_LARGEST: Final = 127  # of int8; -128 is not used, so that both signs have the same range
_SMALLEST: Final = 1e-8  # for a channel that is always 0


@dataclass(frozen=True, eq=False)
class KvScales:
    """The value of 1 in int8: `values` (layers, 2, heads, head_dim), for keys and values."""

    values: NDArray[np.float32]

    @property
    def sha256(self) -> str:
        """Their name in the manifest."""
        return hashlib.sha256(self.values.astype("<f4").tobytes()).hexdigest()

    def to_text(self) -> str:
        """The form for the journal."""
        return base64.b64encode(self.values.astype("<f4").tobytes()).decode()

    @classmethod
    def from_text(cls, text: str, checkpoint: Checkpoint) -> KvScales:
        """Read the form for the journal."""
        cache = checkpoint.cache
        values = np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
        return cls(values.reshape(cache.layers, 2, cache.heads, cache.head_dim))


def measure(inputs: Inputs, prompts: Sequence[MeasuredPrompt], advance: Callable[[], None]) -> KvScales:
    """Read every prompt, and take the largest value of each channel; `advance` is called after each prompt."""
    cache, partners = inputs.checkpoint.cache, _partners(inputs.checkpoint)
    largest = np.full((cache.layers, 2, cache.heads, cache.head_dim), _SMALLEST, dtype=np.float32)
    with open_reference(inputs, inputs.checkpoint) as reference:
        for adapter, tokens in prompts:
            if reference.adapter != adapter:
                reference.forget_adapters()
                reference.use(adapter)
            reference.begin(tokens)
            reference.rewind(0)  # the beginning that the prompt shares with the last one is not read again
            reference.forward(tokens)
            np.maximum(largest, _reach(reference.keys_and_values(), partners), out=largest)
            advance()
    return KvScales(largest / np.float32(_LARGEST))


def _reach(state: NDArray[np.float32], partners: NDArray[np.int64]) -> NDArray[np.float32]:
    """The largest value of each channel, (layers, 2, heads, head_dim), of a state (layers, 2, heads, tokens, head_dim).

    The channels of a key are rotated in pairs, further with each position: either may hold the length of both.
    """
    keys = state[:, 0]
    turned: NDArray[np.float32] = np.hypot(keys, np.where(partners >= 0, keys[..., partners], np.float32(0)))
    return np.stack([turned.max(axis=-2), np.abs(state[:, 1]).max(axis=-2)], axis=1)


def _partners(checkpoint: Checkpoint) -> NDArray[np.int64]:
    """The channel with which each is rotated, (head_dim,); -1: it is not."""
    partners = rotary_partners(checkpoint.architecture, checkpoint.config, checkpoint.cache.head_dim)
    return np.array(partners, dtype=np.int64)
