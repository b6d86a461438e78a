"""Weights as integers: whole numbers of a scale that a block of inputs shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_SHRINKS: Final = (1.0, 0.97, 0.94, 0.9, 0.86)  # factors of a scale: clipping the largest weight may help the others


@dataclass(frozen=True)
class IntegerWeight:
    """A matrix (inputs, outputs) in signed integers; `scales` has shape (blocks of inputs, outputs)."""

    values: NDArray[np.generic]  # int4 (ml_dtypes) or int8
    scales: NDArray[np.float32]

    @property
    def block(self) -> int:
        """The number of inputs that share a scale."""
        return int(self.values.shape[0] // self.scales.shape[0])


def quantize_weight(weight: NDArray[np.float32], *, bits: int, block: int | None) -> IntegerWeight:
    """A matrix rounded to the nearest integers, every block on the scale of the least squared error.

    Args:
        weight: shape (inputs, outputs).
        bits: 4 or 8.
        block: the number of inputs that share a scale, a divisor of all; None: all.

    """
    inputs, outputs = weight.shape
    blocks = weight.reshape(-1, block or inputs, outputs)  # (blocks, block, outputs)
    scales, top = best_scales(blocks, bits), top_of(bits)
    integers = np.clip(np.rint(blocks / scales[:, np.newaxis]), -top - 1, top).reshape(inputs, outputs)
    return stored(integers, scales, bits)


def best_scales(blocks: NDArray[np.float32], bits: int, *, signed: bool = False) -> NDArray[np.float32]:
    """The scales of the least squared error, shape (blocks, outputs).

    Args:
        blocks: weights, shape (blocks, block, outputs).
        bits: 4 or 8.
        signed: a scale may be negative, so that the largest weight of a block lies on the longer side of the grid.

    """
    top = top_of(bits)
    high, low = blocks.max(1), blocks.min(1)
    sign = np.where(signed & (high > -low), np.float32(-1), np.float32(1))
    # The grid has one integer more below 0 than above.
    full = np.maximum(np.where(sign < 0, -low, high) / top, np.where(sign < 0, high, -low) / (top + 1))
    full = sign * np.where(full > 0, full, np.float32(1)).astype(np.float32)
    scales, least = full, np.full(full.shape, np.inf, dtype=np.float32)
    for shrink in _SHRINKS if bits == 4 else _SHRINKS[:1]:
        tried = (full * np.float32(shrink)).astype(np.float32)
        integers = np.clip(np.rint(blocks / tried[:, np.newaxis]), -top - 1, top)
        error = np.square(integers * tried[:, np.newaxis] - blocks).sum(1)
        scales = np.where(error < least, tried, scales)
        least = np.minimum(error, least)
    return scales


def top_of(bits: int) -> int:
    """The largest signed integer of `bits` bits."""
    return int(2 ** (bits - 1) - 1)


def stored(integers: NDArray[np.floating], scales: NDArray[np.float32], bits: int) -> IntegerWeight:
    """Whole numbers (inputs, outputs) in the integer type of `bits` bits."""
    return IntegerWeight(integers.astype(ml_dtypes.int4 if bits == 4 else np.int8), scales)
