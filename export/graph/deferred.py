"""Weights without bytes: torch tensors that remember what was done to them, and do it when they are needed.

onnxruntime-genai's builder transposes, joins and slices a checkpoint's weights on their way into the graph. On these
tensors that costs nothing; `evaluate` does it later, a weight at a time, so the model is never in memory as a whole.
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
    """What torch was asked to do; tensors among the arguments may be deferred."""

    function: Callable[..., Any]
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]


class Deferred(torch.Tensor):
    """A tensor with a shape and a type, and the recipe of its values."""

    recipe: _Weight | _Operation

    @staticmethod
    def __new__(cls: type[Self], like: torch.Tensor, recipe: _Weight | _Operation) -> Self:
        """Take shape, strides and type of `like`, a tensor on the meta device."""
        made: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - torch's way to a tensor without bytes
            cls, like.shape, strides=like.stride(), dtype=like.dtype
        )
        made.recipe = recipe
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without `func`
        cls,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the operation, and have torch work out the shape."""
        if func is _aten._local_scalar_dense.default:  # noqa: SLF001 - "is this bias zero?" wants a number
            return evaluate(args[0]).item()
        keywords = kwargs or {}
        like = func(*tree_map(_shape_of, args), **tree_map(_shape_of, keywords))
        return Deferred(like, _Operation(func, args, keywords))


def deferred(name: str, like: torch.Tensor, source: Weights) -> Deferred:
    """A weight of `source`: of the shape of `like`, in fp32."""
    return Deferred(torch.empty(like.shape, dtype=torch.float32, device="meta"), _Weight(name, source))


def evaluate(tensor: torch.Tensor) -> torch.Tensor:
    """The values, by the operations that were noted; a tensor that is not deferred is given back."""
    if not isinstance(tensor, Deferred):
        return tensor
    recipe = tensor.recipe
    if isinstance(recipe, _Weight):
        return recipe.source.read(recipe.name)
    arguments = tree_map(lambda each: evaluate(each) if isinstance(each, Deferred) else each, recipe.arguments)
    values: torch.Tensor = recipe.function(*arguments, **recipe.keywords)
    return values


def rows(tensor: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """`tensor` in pieces of so many rows. Of a weight as it is, one piece at a time is read."""
    stored, turned = _stored(tensor)
    if stored is None or turned:
        yield from torch.split(evaluate(tensor), count)
        return
    for start in range(0, tensor.shape[0], count):
        yield stored.source.read(stored.name, slice(start, start + count))


def columns(matrix: torch.Tensor, width: int) -> Iterator[torch.Tensor]:
    """`matrix` [K, N] in pieces [K, width]. Of a weight that was only transposed, one piece at a time is read."""
    stored, turned = _stored(matrix)
    if stored is None or not turned:
        yield from torch.split(evaluate(matrix), width, dim=1)
        return
    for start in range(0, matrix.shape[1], width):
        yield stored.source.read(stored.name, slice(start, start + width)).T


def untransposed(matrix: torch.Tensor) -> Deferred | None:
    """The weight that `matrix` is the transpose of; None: it is more than that."""
    stored, turned = _stored(matrix)
    return deferred(stored.name, matrix.T, stored.source) if stored and turned else None


def names(tensor: torch.Tensor) -> frozenset[str]:
    """Of the weights that the values are made of."""
    if not isinstance(tensor, Deferred):
        return frozenset()
    recipe = tensor.recipe
    if isinstance(recipe, _Weight):
        return frozenset({recipe.name})
    leaves, _ = tree_flatten((recipe.arguments, recipe.keywords))
    return frozenset().union(*(names(leaf) for leaf in leaves if isinstance(leaf, Deferred)))


def _stored(tensor: torch.Tensor) -> tuple[_Weight | None, bool]:
    """The weight that `tensor` is as it is, or (True) of which it is the transpose; None: it is more than that."""
    turned = False
    while isinstance(tensor, Deferred):
        recipe = tensor.recipe
        if isinstance(recipe, _Weight):
            return recipe, turned
        if recipe.function in _TRANSPOSE and not turned and list(recipe.arguments[1:]) in ([], [[1, 0]]):
            turned = True
        elif recipe.function not in _SAME:
            break
        tensor = recipe.arguments[0]
    return None, turned


def _shape_of(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
