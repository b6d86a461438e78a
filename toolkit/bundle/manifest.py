"""The bundle's manifest: what the folder holds, byte for byte. docs/bundle-format.md explains each field."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph, GraphForm
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL
from dualtune_edge.toolkit.tools.toolset import Toolset

MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.sha256"  # of the manifest, as `sha256sum -c` reads it
SIGNATURE: Final = "model.sig"  # of all other files; where there is none, the bundle is not signed
MODEL_DIR: Final = "model"  # the base graph with its LoRA slots; opens in plain onnxruntime_genai.Model
ADAPTERS_DIR: Final = "adapters"  # one .onnx_adapter file an external adapter
MERGED_DIR: Final = "merged"  # one graph folder a merged adapter
PROMPTS_DIR: Final = "prompts"  # one PromptPlan a stage
STATES_DIR: Final = "states"  # the KV state of a stage's static prefix, one file each
PROFILES_DIR: Final = "profiles"  # the hardware profile of each variant, as the export read it
VARIANTS_DIR: Final = "variants"  # what a variant's model does not share: a folder each, inside as the bundle's own
PRIMARY: Final = "model"  # name of the model that the manifest's own fields describe

Kind = Literal["toolset", "selection", "arguments", "answer"]
OF_THE_BUNDLE: Final[tuple[Kind, ...]] = ("toolset", "answer")  # of a kind a bundle has one, or none
Mode = Literal["external", "merged"]
Border = Literal["words", "characters"]
CacheType = Literal["float32", "float16", "int16", "int8"]
_WIDTHS: Final[dict[CacheType, int]] = {"float32": 4, "float16": 2, "int16": 2, "int8": 1}  # bytes of a value


class Quantization(Frozen):
    """How the base's weights are stored and computed. What is None has `bits`, and is left out of JSON."""

    bits: Literal[4, 8, 32] = 4  # 32: not quantized
    block_size: Literal[16, 32, 64, 128, 256] = 32  # weights that share one scale
    accuracy_level: Literal[0, 1, 2, 3, 4] = 4  # 4: int8 activations, the only fast one on CPUs
    algorithm: Literal["default", "rtn", "k_quant", "gptq"] = "default"
    lm_head_bits: Literal[8] | None = None  # of the head; a tied embedding reads the same table
    sensitive_bits: Literal[8] | None = None  # of qkv_proj and down_proj in `sensitive_layers`

    @model_validator(mode="after")
    def _mixes_where_it_can(self) -> Self:
        """By `default` the builder names an 8-bit head differently from the tied embedding that reads it."""
        if self.algorithm == "gptq" and self.bits != 4:
            raise ValueError("`bits: 4` with `algorithm: gptq`")
        plain = self.algorithm in ("default", "gptq")
        if (self.lm_head_bits or self.sensitive_bits) and (self.bits != 4 or plain):
            raise ValueError(
                "`bits: 4` and `algorithm: rtn` or `k_quant` where `lm_head_bits` or `sensitive_bits` are given"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}

    def line(self, layers: int) -> str:
        """In a line, for a model of so many layers."""
        if self.bits == 32:
            return "fp32"
        parts = [f"int{self.bits}", self.algorithm, f"blocks of {self.block_size}"]
        if self.lm_head_bits:
            parts.append(f"head int{self.lm_head_bits}")
        if self.sensitive_bits:
            listed = " ".join(map(str, sensitive_layers(layers)))
            parts.append(f"qkv and down of layers {listed} int{self.sensitive_bits}")
        return ", ".join(parts)


def sensitive_layers(layers: int) -> tuple[int, ...]:
    """Those whose qkv_proj and down_proj are worth more bits: an eighth at either end, every third in between.

    The rule of llama.cpp's mixed types (`use_more_bits` in src/llama-quant.cpp), as onnxruntime-genai's builder has it.
    """
    start = round(layers / 8)
    return tuple(
        layer for layer in range(layers) if layer < layers / 8 or layer >= 7 * layers / 8 or (layer - start) % 3 == 2
    )


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


class QdqQuantization(Frozen):
    """Weights and activations in integers, by QuantizeLinear and DequantizeLinear: what NPUs' compilers take."""

    weight_bits: Literal[4, 8]
    activation_bits: Literal[8, 16]
    block_size: Literal[16, 32, 64, 128] | None = None  # weights that share one scale; None: an output channel's


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
