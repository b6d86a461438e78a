"""A model's weights, read one at a time, so that the model is never in memory as a whole."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.safetensors_file import StoredTensor, ends_early

ALL_ROWS: Final = slice(None)
TABLES: Final = (f"{EMBEDDING}.weight", f"{HEAD}.weight")
ROWS: Final = 1024  # of a table in memory at a time
_TYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CHUNK: Final = 1 << 20  # bytes read at a time: they are widened while they are in the cache


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

    def read(self, name: str, rows: slice = ALL_ROWS, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """A weight, or some of its rows, in fp32; in the memory of `out`, if it is given."""
        shared = name == TABLES[1] and (self.tied or name not in self.stored)
        stored = self.stored[TABLES[0] if shared else name]
        if name not in TABLES or stored.shape[0] >= self.vocabulary:
            return read_rows(stored, rows, out=out)
        start, stop, _ = rows.indices(self.vocabulary)
        values = torch.zeros(stop - start, stored.shape[1]) if out is None else out.zero_()
        read_rows(stored, slice(start, stop), out=values[: max(0, stored.shape[0] - start)])
        return values

    def changed(self, name: str) -> bool:  # noqa: ARG002 - all or nothing
        """Whether it may differ from the base's."""
        return self.merged


def read_rows(stored: StoredTensor, rows: slice = ALL_ROWS, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Some rows of a tensor in fp32: the stored numbers, none of which has more digits.

    Args:
        stored: the tensor.
        rows: those to read; by default all.
        out: takes the values, contiguous and of their shape, so that a caller who reads many allocates once.

    Raises:
        SafetensorError: the file has become shorter since its header was read.

    """
    count, *rest = stored.shape
    start, stop, _ = rows.indices(count)
    values = torch.empty(max(0, stop - start), *rest) if out is None else out
    left = values.view(-1)
    row, dtype = stored.size // count, _TYPES[stored.dtype]  # bytes
    chunk = np.empty(min(_CHUNK, left.numel() * dtype.itemsize), np.uint8)
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.offset + start * row)
        while left.numel():
            size = min(chunk.size, left.numel() * dtype.itemsize)
            _fill(file, chunk[:size], stored)
            read = torch.from_numpy(chunk[:size]).view(dtype)
            left[: read.numel()].copy_(read)
            left = left[read.numel() :]
    return values


def _fill(file: io.FileIO, room: NDArray[np.uint8], stored: StoredTensor) -> None:
    """Read as many bytes as there is room for."""
    while room.size:
        count = file.readinto(room.data)
        if not count:
            raise ends_early(stored.name, room.size)
        room = room[count:]


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
