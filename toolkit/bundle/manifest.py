"""The bundle's manifest: what the folder holds, byte for byte. docs/bundle-format.md explains each field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.adapters import AdapterEntry
from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph, GraphForm
from dualtune_edge.toolkit.bundle.kv_states import CacheShape, StateEntry
from dualtune_edge.toolkit.bundle.layout import MANIFEST, MODEL_DIR, PRIMARY
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization, Quantization
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL
from dualtune_edge.toolkit.tools.toolset import Toolset

Border = Literal["words", "characters"]


class BaseInfo(Frozen):
    """The base model: `fingerprint` is a SHA-256 over its config and every weight's name, type, shape and bytes."""

    name: str
    architecture: str
    fingerprint: str
    task: str
    context_length: int
    vocab_size: int
    end_of_turn: tuple[int, ...]


class TokenizerInfo(Frozen):
    """`fingerprint`: SHA-256 of tokenizer.json. `bos` and `eos` are what templates call `bos_token` and `eos_token`."""

    fingerprint: str
    vocab_size: int
    bos: str
    eos: str


class CopiedProperty(Frozen):
    """A property of a tool whose texts are pieces of the conversation, such as `path` or `edits[].oldText`.

    `border`: where a piece begins and ends, at words or at any character.
    """

    name: str
    border: Border = "words"


class Stage(Frozen):
    """One prompt and the adapter that answers it; no adapter: the base answers."""

    prompt: str  # path of the PromptPlan
    adapter: str | None = None
    state: str | None = None  # path of the prefix's KV state; None: the device computes it
    copied: tuple[CopiedProperty, ...] = ()  # of the tool whose arguments it writes; none is left out of JSON

    @model_serializer(mode="wrap")
    def _without_none_copied(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if name != "copied" or value}


class ToolsetEntry(Frozen):
    """A toolset with its stages. A tool that takes no arguments has no entry in `arguments`."""

    toolset: Toolset
    selection: Stage
    arguments: dict[str, Stage]


class ContextBinary(Frozen):
    """What a compiler made of static graphs for one SoC. The provider loads it in place of the graphs."""

    path: str
    adapter: str | None  # whose merged weights it holds; None: the base's
    soc_model: int
    htp_arch: int
    compiler: str  # name and version; a runtime of another version may refuse it


class ModelEntry(Frozen):
    """The base with all its adapters in one compiled form, as one or more variants run it.

    Every model of a bundle holds the same adapters, each in its own way. Files may be shared: `folder`, and paths of
    adapters, can be those of another model.
    """

    name: str
    folder: str  # of the base's graphs: `graph.files`
    graph: GraphForm
    quantization: Quantization | QdqQuantization
    cache: CacheShape
    adapters: tuple[AdapterEntry, ...]  # merged: `path` is a folder with `graph.files`
    states: tuple[StateEntry, ...] = ()
    stage_states: dict[str, str] = Field(default_factory=dict)  # path of a prompt → path of its prefix's state
    contexts: tuple[ContextBinary, ...] = ()


class Variant(Frozen):
    """A way to run the bundle: a hardware profile, and the model that was built for it."""

    profile: str  # its name
    file: str  # its TOML, in the bundle: the device need not know it
    model: str  # a ModelEntry's name, or PRIMARY


class Release(Frozen):
    """Which product a bundle is of, and which version. Of two bundles of a product the higher version is the newer.

    `expires`: the last day (UTC) on which this may be the newest version. Later, updates are not arriving.
    """

    product: Annotated[str, Field(max_length=limits.NAME_CHARS, pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$")]
    version: Annotated[int, Field(ge=1, le=limits.RELEASE_VERSION, strict=True)]
    expires: date | None = None

    def __str__(self) -> str:
        return f"{self.product} {self.version}"


class FileEntry(Frozen):
    """A file of the bundle, its path relative to the bundle and with forward slashes."""

    path: str
    size: int
    sha256: str


class Manifest(Frozen):
    """The whole of `manifest.json`.

    Version 2 has variants; a bundle without any is written as version 1, which has neither `models` nor `variants`. The
    primary model is what `cache`, `quantization`, `profile`, `adapters`, `states` and the stages' `state` describe: a
    dynamic graph that the CPU provider runs, so that every bundle can be run anywhere. `models` are the others.
    """

    format: Literal["dualtune-edge-bundle"] = "dualtune-edge-bundle"
    version: Literal[1, 2] = 1
    release: Release | None = None  # None is left out of JSON
    base: BaseInfo
    tokenizer: TokenizerInfo
    cache: CacheShape
    quantization: Quantization
    profile: str | None  # a hardware profile's name; None: the device takes the one that fits it
    no_tool: str = NO_TOOL
    toolset_choice: Stage | None  # None: there is one toolset
    answer: Stage | None = None  # None: the base's text, by its own template; left out of JSON
    toolsets: tuple[ToolsetEntry, ...] = Field(min_length=1)
    adapters: tuple[AdapterEntry, ...]
    states: tuple[StateEntry, ...]
    models: tuple[ModelEntry, ...] = ()
    variants: tuple[Variant, ...] = ()
    files: tuple[FileEntry, ...]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _variants_are_version_2(self) -> Self:
        if (self.version == 2) != bool(self.variants) or (self.models and not self.variants):
            raise ValueError("variants in version 2, and only there")
        return self

    @property
    def primary(self) -> ModelEntry:
        """The model that the manifest's own fields describe."""
        return ModelEntry(
            name=PRIMARY,
            folder=MODEL_DIR,
            graph=DynamicGraph(),
            quantization=self.quantization,
            cache=self.cache,
            adapters=self.adapters,
            states=self.states,
            stage_states={stage.prompt: stage.state for stage in self.stages if stage.state},
        )

    def model(self, name: str) -> ModelEntry:
        """The model of that name.

        Raises:
            KeyError: there is none; a verified bundle's variants name those that are there.

        """
        return {entry.name: entry for entry in (self.primary, *self.models)}[name]

    @property
    def stages(self) -> Iterator[Stage]:
        """All of them, the toolset choice first and the answer last."""
        if self.toolset_choice:
            yield self.toolset_choice
        for entry in self.toolsets:
            yield entry.selection
            yield from entry.arguments.values()
        if self.answer:
            yield self.answer

    def to_bytes(self) -> bytes:
        """Canonical bytes: the fields' own order, no spaces, UTF-8, one newline at the end.

        Keys are not sorted: a schema's properties stand in the order in which arguments are written.
        """
        absent = {name for name in ("release", "answer") if getattr(self, name) is None}
        value = self.model_dump(mode="json", exclude=absent if self.variants else absent | {"models", "variants"})
        return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()

    def seal(self) -> bytes:
        """What `manifest.sha256` holds: damage to the manifest shows as damage to any other file does."""
        return f"{hashlib.sha256(self.to_bytes()).hexdigest()}  {MANIFEST}\n".encode()
