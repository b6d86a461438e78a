"""GPTQ (arXiv 2210.17323, section 3.3), with the scales of `integers`.

Weights are rounded one input after the other; the error of one is compensated by those still to be rounded. It keeps
the products of the calibration near, and for that needs the second moments of the matrix's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dualtune_edge.export.quantize.integers import IntegerWeight, best_scales, stored, top_of

REACH: Final = 1024  # the number of inputs that compensate one another; their moments take memory by its square
_DAMPING: Final = 0.01  # of the diagonal's mean: some inputs are rarely active in calibration
_STRIP: Final = 32  # inputs whose errors reach the rest of their block in one product

Moments: TypeAlias = Sequence[NDArray[np.float32]]  # Σ xᵀx of every `reach` inputs, shape (inputs, inputs)


def moments(rows: NDArray[np.float32], reach: int = REACH) -> Moments:
    """The second moments of a matrix's inputs; `rows` has shape (rows, inputs)."""
    parts = (rows[:, start : start + reach] for start in range(0, rows.shape[1], reach))
    return tuple(_product(part.T, part) for part in parts)


def filled_up(seconds: Moments, inputs: int) -> Moments:
    """The moments with so many more inputs that are always 0."""
    return (*seconds[:-1], np.pad(seconds[-1], (0, inputs)))


def round_by(
    weight: NDArray[np.float32], seconds: Moments, *, bits: int, block: int | None, signed: bool = False
) -> IntegerWeight:
    """A matrix rounded so that its products with the inputs of the calibration change least.

    Args:
        weight: shape (inputs, outputs).
        seconds: the moments of its inputs.
        bits: 4 or 8.
        block: the number of inputs that share a scale, a divisor of the inputs of every moment; None: all.
        signed: scales may be negative, as MatMulNBits has them.

    """
    inputs, outputs = weight.shape
    rest, top = weight.copy(), top_of(bits)
    scales = np.empty((inputs // (block or inputs), outputs), dtype=np.float32)
    if block is None:
        scales[0] = best_scales(weight[np.newaxis], bits, signed=signed)[0]
    integers = np.empty((inputs, outputs), dtype=np.float32)
    part = 0
    for second in seconds:
        factor, unit = _factor(second), block or len(second)
        for start in range(part, part + len(second), unit):
            end = min(start + unit, part + len(second))
            if block:
                scales[start // block] = best_scales(rest[np.newaxis, start:end], bits, signed=signed)[0]
            scale, own = scales[start // (block or inputs)], factor[start - part : end - part]
            errors = _round_block(rest[start:end], own[:, start - part : end - part], scale, top, integers[start:end])
            rest[end : part + len(second)] -= _product(own[:, end - part :].T, errors)
        part += len(second)
    return stored(integers, scales, bits)


def _round_block(
    rest: NDArray[np.float32],
    factor: NDArray[np.float32],
    scale: NDArray[np.float32],
    top: int,
    integers: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Round inputs of one scale to `integers`, and return their errors; `rest` (inputs, outputs) is used up."""
    errors = np.empty_like(rest)
    for strip in range(0, len(rest), _STRIP):
        end = min(strip + _STRIP, len(rest))
        for row in range(strip, end):
            integers[row] = np.clip(np.rint(rest[row] / scale), -top - 1, top)
            errors[row] = (rest[row] - integers[row] * scale) / factor[row, row]
            rest[row + 1 : end] -= np.outer(factor[row, row + 1 : end], errors[row])
        rest[end:] -= _product(factor[strip:end, end:].T, errors[strip:end])
    return errors


def _factor(second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upper triangle U with Uᵀ U = H⁻¹: row i says how the inputs after i compensate its error."""
    damped = second.astype(np.float64)
    damped[np.diag_indices(len(damped))] += _DAMPING * damped.diagonal().mean() or 1.0
    factor = torch.linalg.cholesky(torch.linalg.inv(torch.from_numpy(damped))).T
    result: NDArray[np.float32] = factor.float().numpy()
    return result


def _product(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product of two matrices, by PyTorch: numpy's depends on the number of cores (`fixed_threads`)."""
    result: NDArray[np.float32] = (torch.from_numpy(one) @ torch.from_numpy(other)).numpy()
    return result
