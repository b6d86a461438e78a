"""Two corrections of onnxruntime 1.32's k-quant.

Measured: it fails on an odd number of blocks in a column, since it packs zero points of 4 bits without regard to
columns. And it clips the zero point to an unsigned number, so a block of weights that are all on one side of zero, and
far from it, becomes one value: all of [0.5, 1] is 0.5. In llama.cpp, where the method is from, every block's range
includes zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blocks:
    """A weight [K, N] as MatMulNBits stores it: scale · (q - zero).

    `quants` (N, blocks, block_size · bits / 8), `scales` (N, blocks), `zeros` (N, ⌈blocks · bits / 8⌉). In 4 bits two
    values share a byte, the first in its lower half.
    """

    bits: int
    quants: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8]


def even(matrix: torch.Tensor, block_size: int) -> torch.Tensor:
    """`matrix` [K, N] with zeros below it, so that a column has an even number of whole blocks."""
    missing = -matrix.shape[0] % (2 * block_size)
    return torch.nn.functional.pad(matrix, (0, 0, 0, missing))


def corrected(blocks: Blocks, matrix: NDArray[np.float32]) -> Blocks:
    """The blocks of `matrix` alone; those with one sign are rounded to nearest between zero and their largest weight.

    Args:
        blocks: k-quant's, of `even(matrix)`.
        matrix: the weights, shape (K, N).

    """
    depth, width = matrix.shape
    block_size = blocks.quants.shape[2] * 8 // blocks.bits
    count = -(-depth // block_size)
    padded = np.pad(matrix.T, ((0, 0), (0, count * block_size - depth))).reshape(width, count, block_size)
    quants, scales = blocks.quants[:, :count].copy(), blocks.scales[:, :count].copy()
    zeros = _unpacked(blocks.zeros, blocks.bits)[:, :count]
    one_sign = (padded.min(axis=2) > 0) | (padded.max(axis=2) < 0)  # (N, blocks)
    if one_sign.any():
        levels = 2**blocks.bits - 1
        values = padded[one_sign]  # (blocks with one sign, block_size)
        scale = np.abs(values).max(axis=1, keepdims=True) / levels
        zero = np.where(values[:, :1] < 0, levels, 0).astype(np.uint8)
        quants[one_sign] = _packed(np.clip(np.rint(values / scale) + zero, 0, levels), blocks.bits)
        scales[one_sign], zeros[one_sign] = scale[:, 0], zero[:, 0]
    return Blocks(blocks.bits, quants, scales, _packed(zeros, blocks.bits))


def _unpacked(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return values.copy()
    return np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:-1], -1)


def _packed(values: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Values packed along the last axis; in 4 bits an unused half of the last byte is 8, as in onnxruntime."""
    whole: NDArray[np.uint8] = values.astype(np.uint8)
    if bits == 8:
        return whole
    if whole.shape[-1] % 2:
        whole = np.pad(whole, ((0, 0), (0, 1)), constant_values=8)
    packed: NDArray[np.uint8] = whole[..., ::2] | whole[..., 1::2] << np.uint8(4)
    return packed
