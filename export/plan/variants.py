"""A bundle for several profiles: the models they need, and where the files of each model go. Equal files are one file.

Profiles whose dynamic graph, quantization and modes are equal share a model. Models of equal quantization share the
base's graph and the merged graphs. All share the tokenizer, the prompts and, where the slots are the same, the files of
external adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from dualtune_edge.export.plan.inputs import Inputs, mode_for, quantization_for, with_modes
from dualtune_edge.export.plan.layout import ModelLayout
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.recipes import AUTO
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.profiles.schema import HardwareProfile
from dualtune_edge.toolkit.bundle.layout import PRIMARY, PROFILES_DIR, VARIANTS_DIR
from dualtune_edge.toolkit.bundle.manifest import ModelEntry, Variant
from dualtune_edge.toolkit.errors import ProfileError, SpecError
from dualtune_edge.toolkit.files import safe_name


@dataclass(frozen=True)
class ModelPlan:
    """A model to build, and the profiles that it serves."""

    name: str
    inputs: Inputs
    profiles: tuple[HardwareProfile, ...]


class StaticExporter(Protocol):
    """Builds the static graphs that one provider compiles."""

    def check(self, inputs: Inputs, profile: HardwareProfile) -> None:
        """Refuse inputs that cannot be built, before any work begins.

        Raises:
            EdgeError: what cannot be built, and what would work instead.

        """

    def check_prompts(self, plans: Plans, profile: HardwareProfile) -> None:
        """Refuse a prompt that the graphs have no room for, before any work begins.

        Raises:
            RequestError: which prompt, and how long it is.

        """

    def export(
        self, model: ModelPlan, plans: Plans, work: Work, progress: Progress, *, states_mb: int | None
    ) -> tuple[ModelEntry, tuple[str, ...]]:
        """Build the model in the work folder; its entry in the manifest, and warnings.

        `states_mb`: the most MB of prefix states; None: all.

        Raises:
            EdgeError: what cannot be built, and why.

        """


Exporters: TypeAlias = Mapping[str, StaticExporter]  # by provider


def plan_models(spec: ExportSpec, inputs: Inputs, exporters: Exporters) -> tuple[ModelPlan, ...]:
    """The primary model first, then the others, in the order of the profiles.

    Args:
        spec: what is exported.
        inputs: what was read, for the primary model.
        exporters: by provider, for static graphs.

    Raises:
        ProfileError: a profile with a static graph for a provider that no exporter is for.
        AdapterError: an adapter cannot be held in the mode that a profile needs.
        SpecError: `quantization: auto` where more than one model would be built.

    """
    plans = [ModelPlan(PRIMARY, inputs, ())]
    for profile in inputs.profiles:
        wanted = _wanted(spec, inputs, profile, exporters)
        same = next((index for index, plan in enumerate(plans) if _same(plan.inputs, wanted)), None)
        if same is None:
            name = safe_name(profile.name)
            plans.append(ModelPlan(name, replace(wanted, layout=_layout(name, wanted, plans)), (profile,)))
        else:
            plans[same] = replace(plans[same], profiles=(*plans[same].profiles, profile))
    _refuse_auto_for_several(spec, plans)
    return tuple(plans)


def check_prompts(models: Sequence[ModelPlan], plans: Plans, exporters: Exporters) -> None:
    """Refuse prompts that a static graph has no room for.

    Raises:
        RequestError: which prompt, and how long it is.

    """
    for profile in (profile for model in models if is_static(model) for profile in model.profiles):
        exporters[profile.provider].check_prompts(plans, profile)


def _refuse_auto_for_several(spec: ExportSpec, plans: Sequence[ModelPlan]) -> None:
    """Models of equal quantization share graphs, and `auto` knows the quantization only after building them."""
    dynamic = [plan.name for plan in plans if not is_static(plan)]
    if spec.quantization == AUTO and len(dynamic) > 1:
        raise SpecError(
            "quantization",
            found=f"`auto`, and profiles for which {len(dynamic)} models are built",
            expected="profiles that one model serves",
            fix="Export for one profile with `auto`, then for all with the recipe that it took.",
        )


def write_profiles(plans: Sequence[ModelPlan], work: Work) -> tuple[Variant, ...]:
    """Write the file of each profile; none where the primary model is the only one, for at most one profile."""
    models = {profile.name: plan.name for plan in plans for profile in plan.profiles}
    inputs = plans[0].inputs
    if len(plans) == 1 and len(inputs.profiles) < 2:
        return ()
    (work.folder / PROFILES_DIR).mkdir()
    variants = []
    for profile, data in zip(inputs.profiles, inputs.profile_files, strict=True):
        file = f"{PROFILES_DIR}/{safe_name(profile.name)}.toml"
        (work.folder / file).write_bytes(data)
        variants.append(Variant(profile=profile.name, file=file, model=models[profile.name]))
    return tuple(variants)


def _wanted(spec: ExportSpec, inputs: Inputs, profile: HardwareProfile, exporters: Exporters) -> Inputs:
    """The inputs of the profile's model."""
    if profile.graph.form == "static":
        if profile.provider not in exporters:
            raise ProfileError(
                f"profile {profile.name}",
                found=f"a static graph for {profile.provider}",
                expected=f"a dynamic graph{''.join(f', or a static one for {provider}' for provider in exporters)}",
                fix="Leave this profile out: the others' models run on the device's CPU.",
            )
        own = replace(with_modes(inputs, spec, mode_for(spec, profile)), profile=profile)
        exporters[profile.provider].check(own, profile)
        return own
    own = replace(with_modes(inputs, spec, mode_for(spec, profile)), quantization=quantization_for(spec, profile))
    return replace(own, profile=profile)


def _same(one: Inputs, other: Inputs) -> bool:
    """Whether two models are one; every static model is for another SoC."""
    if "static" in {_form(one), _form(other)}:
        return False
    return (one.quantization, one.kv_type, _modes(one)) == (other.quantization, other.kv_type, _modes(other))


def is_static(plan: ModelPlan) -> bool:
    """Whether the exporter of its provider builds it."""
    return _form(plan.inputs) == "static"


def _form(inputs: Inputs) -> str:
    return inputs.profile.graph.form if inputs.profile else "dynamic"


def _modes(inputs: Inputs) -> tuple[str, ...]:
    return tuple(adapter.mode for adapter in inputs.adapters)


def _layout(name: str, wanted: Inputs, plans: Sequence[ModelPlan]) -> ModelLayout:
    """A folder for the model, and the folders of earlier models for files that are equal."""
    own = ModelLayout.below(f"{VARIANTS_DIR}/{name}")
    if _form(wanted) == "static":
        return own
    for plan in plans:
        other = plan.inputs
        if _form(other) == "static":
            continue
        if (other.quantization, other.kv_type) == (wanted.quantization, wanted.kv_type):
            own = replace(own, merged=other.layout.merged)
            if _extras(other) == _extras(wanted):
                own = replace(own, model=other.layout.model, adapters=other.layout.adapters)
        elif not _extras(other) | _extras(wanted):  # the slots of the layers' modules are the same in every graph
            own = replace(own, adapters=other.layout.adapters)
    return own


def _extras(inputs: Inputs) -> frozenset[str]:
    return frozenset(extra for adapter in inputs.adapters if adapter.mode == "external" for extra in adapter.extras)
