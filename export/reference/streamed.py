"""A base model in float32 that holds one layer at a time: a checkpoint of 15 GB would take 30."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import torch

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import unfilled_model
from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.weights import StoredWeights

LARGE: Final = 1 << 30  # bytes of weights in float32; more are not held at once
_LAYERS: Final = "model.layers"
_PIECE: Final = 1 << 24  # weights of the head in memory at a time
_ALIGNED: Final = 16  # numbers: a matrix begins where PyTorch would let it begin, which kernels may depend on


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
        tables[1].forward = _Head(weights, len(tables[1].weight), _Room()).forward
    room = _Room()
    for index, layer in enumerate(model.get_submodule(_LAYERS)):
        _Streamed(layer, f"{_LAYERS}.{index}", weights, room)
    return model.eval()


class _Room:
    """Memory for the matrices of one layer, which the next layer's take. Copies of a model have it in common.

    Blocks of their own would be new pages every time, and leave holes in glibc's heap: 0.8 GB of a 0.5B model.
    """

    def __init__(self) -> None:
        self._values = torch.empty(0)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def matrices(self, shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Uninitialized matrices of these shapes, which end the use of those given before."""
        sizes = [math.prod(shape) for shape in shapes]
        starts = [0, *itertools.accumulate(-(-size // _ALIGNED) * _ALIGNED for size in sizes)]
        if self._values.numel() < starts[-1]:
            self._values = torch.empty(starts[-1])
        places = zip(starts, sizes, shapes, strict=False)
        return [self._values[start : start + size].view(*shape) for start, size, shape in places]


class _Rows:
    """The embedding while it runs: the rows of the tokens in its input, under new numbers."""

    def __init__(self, table: torch.nn.Embedding, weights: StoredWeights) -> None:
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

    weights: StoredWeights
    rows: int
    room: _Room

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) → (batch, tokens, vocabulary)."""
        return torch.cat([torch.nn.functional.linear(hidden, rows) for rows in self._pieces(hidden.shape[-1])], dim=-1)

    def _pieces(self, width: int) -> Iterator[torch.Tensor]:
        step = max(1, _PIECE // width)
        for start in range(0, self.rows, step):
            stop = min(start + step, self.rows)
            (piece,) = self.room.matrices([(stop - start, width)])
            yield self.weights.read(f"{HEAD}.weight", slice(start, stop), out=piece)


class _Streamed:
    """The matrices of one layer; kept alive by the layer's hooks."""

    def __init__(self, layer: torch.nn.Module, prefix: str, weights: StoredWeights, room: _Room) -> None:
        self._weights, self._room = weights, room
        # By the names in the checkpoint: PEFT moves the modules later, and leaves their parameters.
        self._matrices = [
            (f"{prefix}.{name}", parameter) for name, parameter in layer.named_parameters() if parameter.dim() > 1
        ]
        layer.register_forward_pre_hook(self._read)
        layer.register_forward_hook(self._drop)

    def _read(self, *_: object) -> None:
        matrices = self._room.matrices([parameter.shape for _, parameter in self._matrices])
        for (name, parameter), matrix in zip(self._matrices, matrices, strict=True):
            parameter.data = self._weights.read(name, out=matrix)

    def _drop(self, *_: object) -> None:
        for _name, parameter in self._matrices:
            parameter.data = _zeros(parameter.shape)


def _zeros(shape: torch.Size) -> torch.Tensor:
    """Zeros of this shape in the memory of one."""
    return torch.zeros(()).expand(shape)
