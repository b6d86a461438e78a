"""Reads and checks the base, the tools, the adapters and the profiles, before any work begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dualtune_edge.export.adapter.vocabulary import with_added_tokens
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.optimum.description import Decoder
from dualtune_edge.export.optimum.read import read_folder
from dualtune_edge.export.plan.layout import BundledAdapter, ModelLayout, bundled_adapters
from dualtune_edge.export.plan.toolsets import (
    AdapterInput,
    BundleAdapters,
    ToolsetInput,
    adapter_folders,
    read_bundle_adapters,
    read_toolsets,
    toolset_warnings,
)
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.recipes import AUTO, RECIPES, TemplateChoice, candidates
from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.schema import HardwareProfile, KvType
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.manifest import BaseInfo, ModelEntry, Release
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import SpecError


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of one model. `warnings`: what a user might not expect of them.

    In a bundle of several models each has its own; `with_modes` and `variants` derive them from the primary model's.
    """

    checkpoint: Checkpoint
    toolsets: tuple[ToolsetInput, ...]
    quantization: Quantization
    profile: HardwareProfile | None  # the first with a dynamic graph, for which the primary model is built
    profiles: tuple[HardwareProfile, ...]
    profile_files: tuple[bytes, ...]  # TOML of each profile
    no_tool: str
    toolset_template: Path | None
    warnings: tuple[str, ...]
    answer_template: Path | None = None
    others: BundleAdapters = field(default_factory=BundleAdapters)  # those for the whole bundle
    template: TemplateChoice | None = None
    decoder: Decoder | None = None  # from Optimum's graph; None: the builder makes the graph
    release: Release | None = None
    layout: ModelLayout = field(default_factory=ModelLayout)

    @property
    def adapters(self) -> tuple[AdapterInput, ...]:
        """Every adapter, that of the toolset choice first and that of the answer last; a toolset's selection first."""
        of_toolsets = (adapter for source in self.toolsets for adapter in source.adapters)
        return tuple(filter(None, (self.others.toolset, *of_toolsets, self.others.answer)))

    @property
    def bundled_adapters(self) -> tuple[BundledAdapter, ...]:
        """Every adapter with its path in the bundle."""
        return tuple(bundled_adapters(self.adapters, self.layout))

    @property
    def kv_type(self) -> KvType:
        """The type of the KV cache, which the profile chooses."""
        return self.profile.kv_type if self.profile else "float32"

    @property
    def transposed_slots(self) -> bool:
        """Whether A and B are stored transposed (`add_slots`) in every model: not where all profiles are for arm64."""
        return not self.profiles or any(profile.architecture != "arm64" for profile in self.profiles)


def read_inputs(spec: ExportSpec) -> Inputs:
    """Read and check the files that the spec names.

    Raises:
        ProfileError: the profile is unknown or malformed.
        ToolsError: a tool list or schema cannot be used.
        CheckpointError: the base cannot be exported.
        AdapterError: an adapter cannot be used exactly.
        SpecError: an adapter for no tool, two for one tool, or names that collide.
        GraphError: Optimum's graph is of another base, or has parts that are not recognized.

    """
    _refuse_unjudged(spec)
    files = tuple(map(catalog.read, spec.profiles))
    profiles = tuple(catalog.parse(data, where=name) for data, name in zip(files, spec.profiles, strict=True))
    _refuse_double_profiles(profiles)
    profile = next((profile for profile in profiles if profile.graph.form == "dynamic"), None)
    if spec.graph and (static := [profile.name for profile in profiles if profile.graph.form != "dynamic"]):
        raise SpecError(
            "graph",
            found=f"a graph by Optimum, and {static[0]!r}, a profile whose static graph cannot be made from it",
            expected="profiles with dynamic graphs",
            fix="Leave out one of them.",
        )
    checkpoint = with_added_tokens(read_checkpoint(spec.base), adapter_folders(spec))
    mode = mode_for(spec, profile)
    toolsets, others = read_toolsets(spec, checkpoint, mode), read_bundle_adapters(spec, checkpoint, mode)
    inputs = Inputs(
        checkpoint=checkpoint,
        toolsets=toolsets,
        quantization=quantization_for(spec, profile),
        profile=profile,
        profiles=profiles,
        profile_files=files,
        no_tool=spec.no_tool,
        release=spec.release,
        toolset_template=spec.toolset_template,
        answer_template=spec.answer_template,
        template=spec.template,
        warnings=(*checkpoint.warnings, *_profile_warnings(profiles), *toolset_warnings(toolsets, others)),
        others=others,
        decoder=read_folder(spec.graph, checkpoint) if spec.graph else None,
    )
    _refuse_collisions(inputs)
    return inputs


def with_modes(inputs: Inputs, spec: ExportSpec, default: Mode) -> Inputs:
    """The same inputs with another mode for adapters that name none.

    Raises:
        AdapterError: an adapter cannot be held in this mode.

    """
    if default == mode_for(spec, inputs.profile):
        return inputs
    return replace(
        inputs,
        toolsets=read_toolsets(spec, inputs.checkpoint, default),
        others=read_bundle_adapters(spec, inputs.checkpoint, default),
    )


def mode_for(spec: ExportSpec, profile: HardwareProfile | None) -> Mode:
    """The mode of adapters that name none: the spec's, or the profile's."""
    return spec.mode or (profile.mode if profile else None) or "external"


def quantization_for(spec: ExportSpec, profile: HardwareProfile | None) -> Quantization:
    """How the weights of a dynamic graph are stored; with `auto` the first recipe."""
    return quantizations_for(spec, profile)[0]


def quantizations_for(spec: ExportSpec, profile: HardwareProfile | None) -> tuple[Quantization, ...]:
    """Recipes for the weights of a dynamic graph, in the order in which they are tried.

    What the spec leaves out is the profile's.

    Raises:
        SpecError: spec and profile contradict each other, or `auto` has no comparison to choose by.

    """
    if spec.quantization == AUTO and spec.parity is None:
        raise SpecError(
            "quantization",
            found="`auto`, and no comparison with PEFT",
            expected="a comparison, by which it chooses",
            fix=f"Name a recipe ({', '.join(RECIPES)}), or leave out `parity: off` and --no-parity.",
        )
    recipes = candidates(spec.quantization, (profile.quantization if profile else None) or Quantization())
    if profile and profile.kv_type == "int8" and any(recipe.bits == 32 for recipe in recipes):
        raise SpecError(
            "quantization",
            found=f"`bits: 32`, and {profile.name!r}, a profile whose KV cache is in int8",
            expected="weights that are quantized too: what is not is compared as exact",
            fix="Leave out one of them.",
        )
    return recipes


def _refuse_unjudged(spec: ExportSpec) -> None:
    if spec.prefix_states_type == "auto" and spec.parity is None:
        raise SpecError(
            "prefix_states_type",
            found="`auto`, and no comparison with PEFT",
            expected="a comparison, by whose prompts and limits it chooses",
            fix="Name float32 or float16, or leave out `parity: off` and --no-parity.",
        )


def _refuse_double_profiles(profiles: Sequence[HardwareProfile]) -> None:
    names = [profile.name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(
                "profile",
                found=f"two profiles named {name!r}",
                expected="each name once",
                fix="Leave one out, or give your own file another `name`.",
            )


def _profile_warnings(profiles: tuple[HardwareProfile, ...]) -> Iterable[str]:
    if len(profiles) == 1 and profiles[0] not in catalog.profiles():
        yield f"profile {profiles[0].name!r} is a file of yours: the device needs it beside the bundle"


def _refuse_collisions(inputs: Inputs) -> None:
    """Toolset `a.b` with tool `c` and toolset `a` with tool `b.c` would be one name."""
    seen: dict[str, str] = {}
    for source in inputs.toolsets:
        for tool in source.toolset.tools:
            name = f"{source.toolset.name}.{tool.name}"
            if seen.setdefault(name, source.toolset.name) != source.toolset.name:
                raise SpecError(
                    "toolsets",
                    found=f"{name!r} twice: in toolset {seen[name]!r} and in {source.toolset.name!r}",
                    expected="names of toolset and tool that are different when joined by a dot",
                    fix="Rename one of the toolsets.",
                )


def base_info(checkpoint: Checkpoint) -> BaseInfo:
    """The base model."""
    return BaseInfo(
        name=checkpoint.name,
        architecture=checkpoint.architecture.name,
        fingerprint=checkpoint.fingerprint,
        task=checkpoint.task,
        context_length=checkpoint.context_length,
        vocab_size=checkpoint.vocab_size,
        end_of_turn=checkpoint.end_of_turn,
    )


def dynamic_model(inputs: Inputs, cache: CacheShape, name: str = PRIMARY) -> ModelEntry:
    """A model with a dynamic graph, without prefix states.

    Args:
        inputs: what it is made of.
        cache: the KV cache of its graphs.
        name: its name in the bundle.

    """
    return ModelEntry(
        name=name,
        folder=inputs.layout.model,
        graph=DynamicGraph(),
        quantization=inputs.quantization,
        cache=cache,
        adapters=tuple(bundled.entry for bundled in inputs.bundled_adapters),
    )


def model_source(inputs: Inputs, folder: Path, entry: ModelEntry) -> ModelSource:
    """What an engine opens of a model whose bundle grows in `folder`."""
    return ModelSource.of(base_info(inputs.checkpoint), folder, entry)
