"""The KV cache of a model, and the files with the KV states of static prefixes."""

from __future__ import annotations

import math
from typing import Final, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from dualtune_edge.toolkit.frozen import Frozen

CacheType = Literal["float32", "float16", "int16", "int8"]
_WIDTHS: Final[dict[CacheType, int]] = {"float32": 4, "float16": 2, "int16": 2, "int8": 1}  # bytes of a value


class CacheShape(Frozen):
    """The KV cache of one token: layers × 2 × heads × head_dim values of `dtype`.

    int16: on the ranges of a static graph. int8: on scales that the graphs hold, whose SHA-256 is `scales`.
    """

    layers: int
    heads: int
    head_dim: int
    dtype: CacheType = "float32"
    scales: str | None = None  # None is left out of JSON

    @model_validator(mode="after")
    def _int8_has_scales(self) -> Self:
        if (self.dtype == "int8") != (self.scales is not None):
            raise ValueError("`scales` for a cache in int8, and for no other")
        return self

    @property
    def token_bytes(self) -> int:
        """Of one token's keys and values."""
        return 2 * self.layers * self.heads * self.head_dim * _WIDTHS[self.dtype]

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}


class StateKey(Frozen):
    """All that the KV values of a prefix depend on. They are restored only where every field is equal."""

    identity: str  # the base's fingerprint and the adapter's mode and content
    graph: str  # SHA-256 over the hashes of the graph's files and the adapter's
    tokens: str  # SHA-256 over the prefix, 8 bytes a token
    kv_format: str  # the engine, and how its values lie
    dtype: CacheType
    shape: tuple[int, int, int, int, int]  # layers, 2 (keys and values), heads, tokens, head_dim


class StateEntry(Frozen):
    """A file of raw little-endian values, `key.shape` in C order.

    `stored` is their type in the file where that is not `key.dtype`: rounded at the export, and widened when restored.
    """

    path: str
    key: StateKey
    stored: Literal["float16"] | None = None  # None is left out of JSON

    @model_validator(mode="after")
    def _rounds_float32_alone(self) -> Self:
        if self.stored and self.key.dtype != "float32":
            raise ValueError(f"no `stored` where the values are {self.key.dtype}: they are not rounded")
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}

    @property
    def dtype(self) -> CacheType:
        """Of the values in the file."""
        return self.stored or self.key.dtype

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return _WIDTHS[self.dtype] * math.prod(self.key.shape)
