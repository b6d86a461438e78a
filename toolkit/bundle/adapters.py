"""The LoRA adapters of a bundle: what each answers, and how it is held."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from dualtune_edge.toolkit.frozen import Frozen

Kind = Literal["toolset", "selection", "arguments", "answer"]
OF_THE_BUNDLE: Final[tuple[Kind, ...]] = ("toolset", "answer")  # of a kind a bundle has one, or none
Mode = Literal["external", "merged"]


class AdapterIdentity(Frozen):
    """Which LoRA adapter: what it answers, how it is held, and what it holds.

    Those of the kinds `toolset` and `answer` are for the whole bundle; the others name their toolset.
    `rank` and `scale` are those of its config; a pattern may change them for single modules. An activated adapter
    changes the tokens from the last occurrence of its `invocation` in a prompt on; those before it are the base's.
    """

    name: str
    kind: Kind
    toolset: str | None
    tool: str | None
    mode: Mode
    rank: int
    scale: float
    sha256: str  # over the adapter's tensors and what of its config changes the mathematics
    invocation: tuple[int, ...] | None = None  # of an activated adapter; None is left out of JSON

    @model_validator(mode="after")
    def _names_what_it_answers(self) -> Self:
        of_toolset = self.kind not in OF_THE_BUNDLE
        if of_toolset != (self.toolset is not None) or (self.kind == "arguments") != (self.tool is not None):
            raise ValueError("`toolset` for the kinds `selection` and `arguments`, and `tool` for `arguments`")
        return self

    @model_validator(mode="after")
    def _activated_is_external(self) -> Self:
        if self.invocation is not None and (self.mode == "merged" or not self.invocation):
            raise ValueError(
                "`invocation` of a token or more, and of an external adapter: merged weights are always active"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_invocation(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if name != "invocation" or value is not None}

    @property
    def identity(self) -> AdapterIdentity:
        """These fields alone, of a type that adds to them."""
        return AdapterIdentity.model_validate({name: getattr(self, name) for name in AdapterIdentity.model_fields})


class AdapterEntry(AdapterIdentity):
    """An adapter of the bundle."""

    path: str  # external: the .onnx_adapter file; merged: the graph's folder; one adapter of several stages is one file

    @classmethod
    def of(cls, adapter: AdapterIdentity, path: str) -> AdapterEntry:
        """The adapter at this path of the bundle."""
        return cls.model_validate({**dict(adapter.identity), "path": path})
