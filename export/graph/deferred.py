"""Weights without bytes: torch tensors that record operations, and compute them when their values are needed.

onnxruntime-genai's builder transposes, joins and slices a checkpoint's weights on their way into the graph. On these
tensors that takes no memory. `evaluate` computes one weight at a time, so the whole model is never in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from torch.utils._pytree import tree_flatten, tree_map

from dualtune_edge.export.base.weights import Weights

_aten = torch.ops.aten
_SAME: Final = (_aten.detach.default, _aten.alias.default)
_TRANSPOSE: Final = (_aten.permute.default, _aten.t.default)


@dataclass(frozen=True)
class _Weight:
    """A weight of the model."""

    name: str
    source: Weights


@dataclass(frozen=True)
class _Operation:
    """An operation of torch; tensors among its arguments may be deferred."""

    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]


class Deferred(torch.Tensor):
    """A tensor with a shape, a type, and a definition of its values."""

    definition: _Weight | _Operation

    @staticmethod
    def __new__(cls: type[Self], like: torch.Tensor, definition: _Weight | _Operation) -> Self:
        """A tensor of the shape, strides and type of `like`, which is on the meta device."""
        tensor: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - torch's way to a tensor without bytes
            cls, like.shape, strides=like.stride(), dtype=like.dtype
        )
        tensor.definition = definition
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without `func`
        cls,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record the operation; torch computes its result's shape."""
        if func is _aten._local_scalar_dense.default:  # noqa: SLF001 - "is this bias zero?" needs a number
            return evaluate(args[0]).item()
        keywords = kwargs or {}
        like = func(*tree_map(_shape_of, args), **tree_map(_shape_of, keywords))
        return Deferred(like, _Operation(func, args, keywords))


def deferred(name: str, like: torch.Tensor, source: Weights) -> Deferred:
    """A weight of `source` in fp32, of the shape of `like`."""
    return Deferred(torch.empty(like.shape, dtype=torch.float32, device="meta"), _Weight(name, source))


def evaluate(tensor: torch.Tensor) -> torch.Tensor:
    """The values of a deferred tensor; another tensor unchanged."""
    if not isinstance(tensor, Deferred):
        return tensor
    definition = tensor.definition
    if isinstance(definition, _Weight):
        return definition.source.read(definition.name)
    arguments = tree_map(lambda leaf: evaluate(leaf) if isinstance(leaf, Deferred) else leaf, definition.arguments)
    values: torch.Tensor = definition.function(*arguments, **definition.keywords)
    return values


def rows(tensor: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """`tensor` in pieces of `count` rows. A weight that was not changed is read a piece at a time."""
    stored, turned = _stored(tensor)
    if stored is None or turned:
        yield from torch.split(evaluate(tensor), count)
        return
    for start in range(0, tensor.shape[0], count):
        yield stored.source.read(stored.name, slice(start, start + count))


def columns(matrix: torch.Tensor, width: int) -> Iterator[torch.Tensor]:
    """`matrix` [K, N] in pieces [K, width]. A weight that was only transposed is read a piece at a time."""
    stored, turned = _stored(matrix)
    if stored is None or not turned:
        yield from torch.split(evaluate(matrix), width, dim=1)
        return
    for start in range(0, matrix.shape[1], width):
        yield stored.source.read(stored.name, slice(start, start + width)).T


def untransposed(matrix: torch.Tensor) -> Deferred | None:
    """The weight whose transpose `matrix` is; None where it is something else."""
    stored, turned = _stored(matrix)
    return deferred(stored.name, matrix.T, stored.source) if stored and turned else None


def names(tensor: torch.Tensor) -> frozenset[str]:
    """The names of the weights that a tensor is computed from."""
    if not isinstance(tensor, Deferred):
        return frozenset()
    definition = tensor.definition
    if isinstance(definition, _Weight):
        return frozenset({definition.name})
    leaves, _ = tree_flatten((definition.arguments, definition.keywords))
    return frozenset().union(*(names(leaf) for leaf in leaves if isinstance(leaf, Deferred)))


def _stored(tensor: torch.Tensor) -> tuple[_Weight | None, bool]:
    """The weight that `tensor` is, and whether it is its transpose; None where it is something else."""
    turned = False
    while isinstance(tensor, Deferred):
        definition = tensor.definition
        if isinstance(definition, _Weight):
            return definition, turned
        if definition.function in _TRANSPOSE and not turned and list(definition.arguments[1:]) in ([], [[1, 0]]):
            turned = True
        elif definition.function not in _SAME:
            break
        tensor = definition.arguments[0]
    return None, turned


def _shape_of(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
