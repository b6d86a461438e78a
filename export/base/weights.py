"""A model's weights, read one at a time, so that the model is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch

from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.safetensors_file import StoredTensor

ALL_ROWS: Final = slice(None)
TABLES: Final = (f"{EMBEDDING}.weight", f"{HEAD}.weight")
ROWS: Final = 1024  # of a table in memory at a time
_TYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Weights(Protocol):
    """Weights by their names in transformers."""

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one table."""

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32."""

    def changed(self, name: str) -> bool:
        """Whether it may differ from the base's."""


@dataclass(frozen=True)
class StoredWeights:
    """Weights in safetensors files; nothing is kept.

    `merged`: whether an adapter was merged into them, so that any may differ from the base's. `vocabulary`: the rows of
    embedding and head; those that the files lack are zero.
    """

    stored: Mapping[str, StoredTensor]
    tied: bool
    merged: bool = False
    vocabulary: int = 0

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32."""
        shared = name == TABLES[1] and (self.tied or name not in self.stored)
        stored = self.stored[TABLES[0] if shared else name]
        if name not in TABLES or stored.shape[0] >= self.vocabulary:
            return read_rows(stored, rows)
        start, stop, _ = rows.indices(self.vocabulary)
        return pad(read_rows(stored, slice(start, stop)), (stop - start, stored.shape[1]))

    def changed(self, name: str) -> bool:  # noqa: ARG002 - all or nothing
        """Whether it may differ from the base's."""
        return self.merged


def read_rows(stored: StoredTensor, rows: slice = ALL_ROWS) -> torch.Tensor:
    """Some rows of a tensor in fp32: the stored numbers, none of which has more digits."""
    count, *rest = stored.shape
    start, stop, _ = rows.indices(count)
    row = stored.size // count  # bytes
    data = np.fromfile(stored.path, np.uint8, (stop - start) * row, offset=stored.offset + start * row)
    return torch.from_numpy(data).view(_TYPES[stored.dtype]).reshape(stop - start, *rest).to(torch.float32)


def pad(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor with zeros behind its last row and column, up to a shape."""
    if tuple(tensor.shape) == shape:
        return tensor
    missing = [(0, wanted - size) for size, wanted in zip(tensor.shape, shape, strict=True)]
    return torch.nn.functional.pad(tensor, [size for pair in reversed(missing) for size in pair])


def same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tables hold the same numbers, whatever their dtypes."""
    if one.shape != other.shape:
        return False
    steps = (slice(start, start + ROWS) for start in range(0, one.shape[0], ROWS))
    return all(torch.equal(read_rows(one, rows), read_rows(other, rows)) for rows in steps)


@dataclass(frozen=True)
class UnchangedWeights:
    """Weights whose graph exists: what the graph holds is taken from there."""

    weights: Weights

    @property
    def tied(self) -> bool:
        """Whether embedding and head are one table."""
        return self.weights.tied

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32."""
        return self.weights.read(name, rows)

    def changed(self, name: str) -> bool:  # noqa: ARG002 - none is
        """Whether it differs from the graph's."""
        return False


@dataclass(frozen=True)
class UntiedWeights:
    """Weights of a graph in float32 for comparisons: for the builder embedding and head are two tables.

    Of a tied table the builder would keep the head's transpose and make the embedding of it. `graph/head_rows.py` keeps
    the rows instead.
    """

    weights: Weights
    tied: bool = False

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32."""
        return self.weights.read(name, rows)

    def changed(self, name: str) -> bool:
        """Whether it may differ from the base's."""
        return self.weights.changed(name)
