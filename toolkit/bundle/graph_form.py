"""The form of a model's graphs: of any length, or of fixed lengths that a compiler was given."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from dualtune_edge.toolkit.frozen import Frozen


class DynamicGraph(Frozen):
    """One graph, `model.onnx`, that takes any number of tokens, with a KV cache that grows."""

    form: Literal["dynamic"] = "dynamic"

    @property
    def files(self) -> tuple[str, ...]:
        """The graphs in a model's folder."""
        return ("model.onnx",)


class StaticGraph(Frozen):
    """One graph for each chunk length, `chunk-<tokens>.onnx`, all with a KV cache of `kv_length` tokens.

    `chunks` rise and begin with 1, which is decoding; a prompt is padded to a sum of them. `kv_length` counts the
    tokens of the chunk itself.
    """

    form: Literal["static"] = "static"
    chunks: tuple[PositiveInt, ...]
    kv_length: PositiveInt

    @model_validator(mode="after")
    def _chunks_rise_from_one(self) -> Self:
        if self.chunks[:1] != (1,) or list(self.chunks) != sorted(set(self.chunks)):
            raise ValueError(f"chunk lengths that rise and begin with 1, and not {list(self.chunks)}")
        if self.chunks[-1] > self.kv_length:
            raise ValueError(f"chunks that fit into the KV cache of {self.kv_length} tokens")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The graphs in a model's folder."""
        return tuple(f"chunk-{tokens}.onnx" for tokens in self.chunks)


GraphForm: TypeAlias = Annotated[DynamicGraph | StaticGraph, Field(discriminator="form")]
