"""A model's weights, read one at a time, so that it is never in memory as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from transformers import AutoConfig

from dualtune_edge.export.base.checkpoint import stored_weights
from dualtune_edge.export.base.modules import EMBEDDING, HEAD

ALL_ROWS: Final = slice(None)
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


class StoredWeights:
    """Those of a folder in Hugging Face's format; nothing is kept.

    Args:
        folder: a checkpoint that `read_checkpoint` has read, or what `merge` has made of one.
        merged: it is the latter.

    Raises:
        CheckpointError: files are missing or damaged.

    """

    def __init__(self, folder: Path, *, merged: bool = False) -> None:
        self.tied: bool = AutoConfig.from_pretrained(folder, local_files_only=True).tie_word_embeddings
        self._stored = stored_weights(folder)
        self._merged = merged

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32: the stored numbers, none of which has more digits."""
        absent = name == f"{HEAD}.weight" and (self.tied or name not in self._stored)
        stored = self._stored[f"{EMBEDDING}.weight" if absent else name]
        count, *rest = stored.shape
        start, stop, _ = rows.indices(count)
        row = stored.size // count  # bytes
        data = np.fromfile(stored.path, np.uint8, (stop - start) * row, offset=stored.offset + start * row)
        return torch.from_numpy(data).view(_TYPES[stored.dtype]).reshape(stop - start, *rest).to(torch.float32)

    def changed(self, name: str) -> bool:  # noqa: ARG002 - all or nothing
        """Whether it may differ from the base's."""
        return self._merged


@dataclass(frozen=True)
class UnchangedWeights:
    """Weights of which a graph was built already: all that the graph holds is taken from there."""

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

    Of one it makes the embedding by transposing the head. Here the head is turned instead: `graph/head_rows.py`.
    """

    weights: Weights
    tied: bool = False

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32."""
        return self.weights.read(name, rows)

    def changed(self, name: str) -> bool:
        """Whether it may differ from the base's."""
        return self.weights.changed(name)
