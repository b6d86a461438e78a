"""A base model in float32 that holds one layer at a time: a checkpoint of 15 GB would take 30."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import unfilled_model
from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.weights import Weights

LARGE: Final = 1 << 30  # bytes of weights in float32; more are not held at once
_LAYERS: Final = "model.layers"
_PIECE: Final = 1 << 24  # weights of the head in memory at a time


def float32_bytes(checkpoint: Checkpoint) -> int:
    """The bytes of all weights in float32."""
    return 4 * sum(math.prod(stored.shape) for stored in checkpoint.stored.values())


def streamed_model(checkpoint: Checkpoint, *, whole_tables: bool = False) -> Any:
    """The model, ready for inference: each layer's matrices are read before its forward and dropped after it.

    Of the embedding the rows of a prompt's tokens are read, of the head some rows at a time. Norms and biases stay.
    PEFT can be put on it: all weights have their shapes all the time, and zeros for values while they are not in use.

    Args:
        checkpoint: the base, or its first layers.
        whole_tables: embedding and head are held, for adapters that change them.

    """
    model: Any = unfilled_model(checkpoint)
    weights = checkpoint.weights
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    for prefix, module in model.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            name = f"{prefix}.{leaf}"
            held = parameter.dim() == 1 or (module in tables and whole_tables)
            value = weights.read(name) if held else _zeros(parameter.shape)
            setattr(module, leaf, torch.nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    if not whole_tables:
        _Rows(tables[0], weights)
        tables[1].forward = _Head(weights, len(tables[1].weight)).forward
    for index, layer in enumerate(model.get_submodule(_LAYERS)):
        _Streamed(layer, f"{_LAYERS}.{index}", weights)
    return model.eval()


class _Rows:
    """The embedding while it runs: the rows of the tokens in its input, under new numbers."""

    def __init__(self, table: torch.nn.Embedding, weights: Weights) -> None:
        self._weights, self._empty = weights, table.weight.data
        table.padding_idx = None  # a row's number in the whole table; it is for training
        table.register_forward_pre_hook(self._read)
        table.register_forward_hook(self._drop)

    def _read(self, table: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        tokens, numbers = torch.unique(inputs[0], return_inverse=True)
        rows = [self._weights.read(f"{EMBEDDING}.weight", slice(int(token), int(token) + 1)) for token in tokens]
        table.weight.data = torch.cat(rows)
        return (numbers,)

    def _drop(self, table: torch.nn.Module, *_: object) -> None:
        table.weight.data = self._empty


@dataclass(frozen=True)
class _Head:
    """The head, some rows of it at a time."""

    weights: Weights
    rows: int

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) → (batch, tokens, vocabulary)."""
        return torch.cat([torch.nn.functional.linear(hidden, rows) for rows in self._pieces(hidden.shape[-1])], dim=-1)

    def _pieces(self, width: int) -> Iterator[torch.Tensor]:
        step = max(1, _PIECE // width)
        for start in range(0, self.rows, step):
            yield self.weights.read(f"{HEAD}.weight", slice(start, start + step))


class _Streamed:
    """The matrices of one layer; kept alive by the layer's hooks."""

    def __init__(self, layer: torch.nn.Module, prefix: str, weights: Weights) -> None:
        self._weights = weights
        # By the names in the checkpoint: PEFT moves the modules later, and leaves their parameters.
        self._matrices = [
            (f"{prefix}.{name}", parameter) for name, parameter in layer.named_parameters() if parameter.dim() > 1
        ]
        layer.register_forward_pre_hook(self._read)
        layer.register_forward_hook(self._drop)

    def _read(self, *_: object) -> None:
        for name, parameter in self._matrices:
            parameter.data = self._weights.read(name)

    def _drop(self, *_: object) -> None:
        for _name, parameter in self._matrices:
            parameter.data = _zeros(parameter.shape)


def _zeros(shape: torch.Size) -> torch.Tensor:
    """Zeros of this shape in the memory of one."""
    return torch.zeros(()).expand(shape)
