"""Activations as integers: the grid of a calibrated range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

TOP: Final = 32767  # of 16 bits, signed
_LEAST: Final = 1e-6


@dataclass(frozen=True)
class Range:
    """The range of an activation's values, and its grid: signed 16-bit integers around 0.

    HTP multiplies two activations in unsigned integers, or with a zero point other than 0, as if one had 8 bits.
    """

    low: float
    high: float

    @classmethod
    def around(cls, values: NDArray[np.float32]) -> Self:
        """The range of these values."""
        return cls(float(values.min()), float(values.max()))

    @property
    def scale(self) -> float:
        """The value of the integer 1."""
        return float(np.float32(max(-self.low, self.high, _LEAST) / TOP))

    def quantize(self, values: NDArray[np.float32]) -> NDArray[np.int16]:
        """The values as QuantizeLinear rounds them: to the nearest integer, clipped to 16 bits."""
        integers = np.rint(values / np.float32(self.scale))
        result: NDArray[np.int16] = np.clip(integers, -TOP - 1, TOP).astype(np.int16)
        return result
