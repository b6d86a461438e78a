"""GPTQ (arXiv 2210.17323, section 3.3), with the scales of `integers`.

Weights are rounded one input after the other; the error of one is compensated by those still to be rounded. It keeps
the products of the calibration near, and for that needs the second moments of the matrix's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dualtune_edge.export.qnn.integers import IntegerWeight, best_scales, stored, top_of

# The number of inputs that compensate one another; their moments take memory by its square.
REACH: Final = 1024
_DAMPING: Final = 0.01  # of the diagonal's mean: some inputs are rarely active in calibration

_Float = TypeVar("_Float", np.float32, np.float64)
Moments: TypeAlias = Sequence[NDArray[np.float32]]  # Σ xᵀx of every `REACH` inputs, shape (inputs, inputs)


def moments(rows: NDArray[np.float32]) -> Moments:
    """The second moments of a matrix's inputs; `rows` has shape (rows, inputs)."""
    parts = (rows[:, start : start + REACH] for start in range(0, rows.shape[1], REACH))
    return tuple(_product(part.T, part) for part in parts)


def round_by(weight: NDArray[np.float32], seconds: Moments, *, bits: int, block: int | None) -> IntegerWeight:
    """A matrix rounded so that its products with the inputs of the calibration change least.

    Args:
        weight: shape (inputs, outputs).
        seconds: the moments of its inputs.
        bits: 4 or 8.
        block: the number of inputs that share a scale, a divisor of all and of `REACH`; None: all.

    """
    inputs, outputs = weight.shape
    rest, top, unit = weight.astype(np.float64), top_of(bits), block or min(inputs, REACH)
    scales = np.empty((inputs // (block or inputs), outputs), dtype=np.float32)
    if block is None:
        scales[0] = best_scales(weight[np.newaxis], bits)[0]
    integers = np.empty((inputs, outputs))
    for part, second in zip(range(0, inputs, REACH), seconds, strict=True):
        factor = _factor(second)
        for start in range(0, len(second), unit):
            end = min(start + unit, len(second))
            rows = slice(part + start, part + end)
            if block:
                scales[rows.start // block] = best_scales(rest[np.newaxis, rows].astype(np.float32), bits)[0]
            scale = scales[rows.start // (block or inputs)].astype(np.float64)
            errors = np.empty((end - start, outputs))
            for index in range(start, end):
                row = part + index
                integers[row] = np.clip(np.rint(rest[row] / scale), -top - 1, top)
                errors[index - start] = (rest[row] - integers[row] * scale) / factor[index, index]
                rest[row + 1 : rows.stop] -= np.outer(factor[index, index + 1 : end], errors[index - start])
            rest[rows.stop : part + len(second)] -= _product(factor[start:end, end:].T, errors)
    return stored(integers, scales, bits)


def _factor(second: NDArray[np.float32]) -> NDArray[np.float64]:
    """The upper triangle U with Uᵀ U = H⁻¹: row i says how the inputs after i compensate its error."""
    damped = second.astype(np.float64)
    damped[np.diag_indices(len(damped))] += _DAMPING * damped.diagonal().mean() or 1.0
    factor = torch.linalg.cholesky(torch.linalg.inv(torch.from_numpy(damped))).T
    result: NDArray[np.float64] = factor.numpy()
    return result


def _product(one: NDArray[_Float], other: NDArray[_Float]) -> NDArray[_Float]:
    """The product of two matrices, by PyTorch: numpy's depends on the number of cores (`fixed_threads`)."""
    result: NDArray[_Float] = (torch.from_numpy(one) @ torch.from_numpy(other)).numpy()
    return result
