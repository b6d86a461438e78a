"""The tables from which the host fills a static graph's inputs, by token and by position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.qnn.shape import DecoderShape


def lookup_tables(
    shape: DecoderShape, positions: int, embedding: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """The tables by the graph's inputs: `hidden` (vocabulary, hidden), `cos` and `sin` (positions, head_dim / 2)."""
    half = shape.head_dim // 2
    frequencies = shape.theta ** (-np.arange(half, dtype=np.float64) / half)
    angles = np.arange(positions)[:, np.newaxis] * frequencies
    return {"hidden": embedding, "cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
