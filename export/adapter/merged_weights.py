"""The base's weights with a plain LoRA adapter merged into them, one weight at a time."""

from __future__ import annotations

import torch

from dualtune_edge.export.adapter.read import AdapterWeights
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.weights import ALL_ROWS


class MergedWeights:
    """A base's with a plain LoRA adapter folded in, as PEFT's `merge_and_unload` does it in fp32.

    Source: peft/tuners/lora/layer.py, `Linear.get_delta_weight` and `merge`, and `Embedding`'s.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: AdapterWeights) -> None:
        self._base = checkpoint.weights
        self._pairs = adapter.pairs
        self._last: tuple[str, torch.Tensor] | None = None
        # PEFT would fold a change of one of the two into both: they become two tables.
        self.tied: bool = checkpoint.tied and not {EMBEDDING, HEAD} & self._pairs.keys()

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        """A weight, or some of its rows, in fp32."""
        if not self.changed(name):
            return self._base.read(name, rows)
        if self._last is None or self._last[0] != name:
            self._last = None  # before the next one takes its place in memory
            self._last = name, self._fold(name)
        return self._last[1][rows]

    def changed(self, name: str) -> bool:
        """Whether the adapter is on it."""
        path, _, part = name.rpartition(".")
        pair = self._pairs.get(path)
        return pair is not None and (part == "weight" or pair.bias is not None)

    def _fold(self, name: str) -> torch.Tensor:
        path, _, part = name.rpartition(".")
        pair = self._pairs[path]
        weight = self._base.read(name)
        if part == "bias":
            assert pair.bias is not None  # noqa: S101 - it would not be changed
            return weight.add_(torch.from_numpy(pair.bias) * pair.scale)
        product = torch.from_numpy(pair.b) @ torch.from_numpy(pair.a)
        if path == EMBEDDING:
            product = product.T  # a table's rows are inputs
        return weight.add_(product.mul_(pair.scale))
