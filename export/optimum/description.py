"""What a decoder's graph computes, as it was read from the graph. Weights are named as the checkpoint names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Activation: TypeAlias = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True)
class Norm:
    """`x / rms(x) · (weight + offset)`."""

    weight: str
    epsilon: float
    offset: float = 0.0


@dataclass(frozen=True)
class Linear:
    """`x Wᵀ + b`."""

    weight: str
    bias: str | None = None


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention over past and present.

    `qkv` are three modules, or one for all three. `rotary` is an index into the decoder's tables, None: no positions.
    `window`: how many tokens a token sees, itself included; None: all.
    """

    qkv: tuple[Linear, ...]
    norms: tuple[Norm, Norm] | None  # of the heads of q and k
    rotary: int | None
    scale: float
    window: int | None
    out: Linear


@dataclass(frozen=True)
class Mlp:
    """`down(activation(gate(x)) · up(x))`; `gate_up` are two modules, or one for both."""

    gate_up: tuple[Linear, ...]
    activation: Activation
    down: Linear


@dataclass(frozen=True)
class Layer:
    """Attention and MLP, each added to its input; the norms `after_…` stand before the addition (Gemma)."""

    before_attention: Norm
    attention: Attention
    after_attention: Norm | None
    before_mlp: Norm
    mlp: Mlp
    after_mlp: Norm | None


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines of the angles of every position: [context, half of the rotated values of a head]."""

    cos: NDArray[np.float32]
    sin: NDArray[np.float32]


@dataclass(frozen=True)
class Decoder:
    """A whole decoder. `embedding_scale`: what embeddings are multiplied by, 1 for nothing."""

    sha256: str  # of the graph's file; its weights are the checkpoint's
    embedding_scale: float
    rotaries: tuple[Rotary, ...]
    layers: tuple[Layer, ...]
    norm: Norm
