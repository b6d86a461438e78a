"""A bundle's variant for Qualcomm's NPUs: static graphs of the base and of every merged adapter, and their contexts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dualtune_edge.export.adapter.merge import merged_weights
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.messages import calibration_prompts
from dualtune_edge.export.plan.prompts import ROOM, PlannedStage, Plans
from dualtune_edge.export.plan.steps import Steps
from dualtune_edge.export.plan.toolsets import AdapterInput
from dualtune_edge.export.plan.variants import ModelPlan
from dualtune_edge.export.qnn.build import build_static
from dualtune_edge.export.qnn.compile import compile_contexts
from dualtune_edge.export.qnn.shape import decoder_shape
from dualtune_edge.export.qnn.states import with_states
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.profiles.schema import HardwareProfile, QnnOptions
from dualtune_edge.runtime.engines.qnn import Htp, compiler, find_htp
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.manifest import ContextBinary, ModelEntry
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization
from dualtune_edge.toolkit.errors import AdapterError, CheckpointError, RequestError

CONTEXTS: Final = "htp"  # folder beside the graphs


class QnnExporter:
    """Builds the graphs that `QNNExecutionProvider` compiles."""

    def check(self, inputs: Inputs, profile: HardwareProfile) -> None:
        """Refuse a base without a static graph, an external adapter, and a machine that cannot compile.

        Raises:
            CheckpointError: the architecture or a field of the config has no static graph, or a width no whole blocks.
            AdapterError: the spec says that an adapter is external.
            ProfileError: the compiler's package is missing, broken, or not for this machine.

        """
        shape = decoder_shape(inputs.checkpoint)
        _, quantization, target = _parts(profile)
        block = quantization.block_size
        widths = {"hidden_size": shape.hidden, "intermediate_size": shape.intermediate}
        widths["num_attention_heads * head_dim"] = shape.heads * shape.head_dim
        for field, width in widths.items():
            if block and width % block:
                raise CheckpointError(
                    f"{inputs.checkpoint.folder / 'config.json'}, {field}",
                    found=str(width),
                    expected=f"a multiple of {block}, the profile's block_size",
                    fix="Take another block_size, or none.",
                )
        for adapter in inputs.adapters:
            if adapter.mode != "merged":
                raise AdapterError(
                    f"adapter {adapter.name}",
                    found=f"mode: {adapter.mode}",
                    expected=f"mode: merged, as profile {profile.name} needs it",
                    fix="Leave its mode out; then the profile's counts.",
                )
        find_htp(target, simulate=True)

    def check_prompts(self, plans: Plans, profile: HardwareProfile) -> None:
        """Refuse a prompt that leaves no room for a conversation in the profile's `kv_length`.

        Raises:
            RequestError: names the prompt and its length.

        """
        room = _parts(profile)[0].kv_length
        for stage in plans.stages:
            frame = stage.plan.frame.tokens if stage.plan.frame else ()
            answer = max(map(len, (*stage.plan.completions.values(), frame)))
            if len(stage.plan.prefix) + ROOM + answer > room:
                raise RequestError(
                    f"prompt of {stage.name}",
                    found=f"{len(stage.plan.prefix)} tokens before the conversation and {answer} after it",
                    expected=f"at least {ROOM} tokens of room between them in {profile.name}'s kv_length of {room}",
                    fix="Split the toolset, shorten its descriptions, or write a profile with a longer kv_length.",
                )

    def export(
        self, model: ModelPlan, plans: Plans, work: Work, progress: Progress, *, states_mb: int | None
    ) -> tuple[ModelEntry, tuple[str, ...]]:
        """Build, calibrate and compile the graphs of the base and of every adapter, and compute their prefix states.

        Raises:
            GraphError: a graph does not compile, or leaves an operator to the CPU.
            AdapterError: an adapter cannot be merged.

        """
        (profile,) = model.profiles
        form, quantization, _ = _parts(profile)
        inputs = model.inputs
        bundled = inputs.bundled_adapters
        paths = {place.adapter.name: place.path for place in bundled}
        build = _Build(inputs, plans, work, profile)
        with progress.phase(PhaseName.STATIC, 1 + len(set(paths.values()))) as phase:
            contexts = [build.make(inputs.layout.model, ())]
            phase.advance()
            for path in dict.fromkeys(paths.values()):
                adapters = tuple(adapter for adapter in inputs.adapters if paths[adapter.name] == path)
                context = build.make(path, adapters)
                contexts += [context.model_copy(update={"adapter": adapter.name}) for adapter in adapters]
                phase.advance()
        entry = ModelEntry(
            name=model.name,
            folder=inputs.layout.model,
            graph=form,
            quantization=quantization,
            cache=inputs.checkpoint.cache.model_copy(update={"dtype": "int16"}),
            adapters=tuple(place.entry for place in bundled),
            contexts=tuple(contexts),
        )
        return with_states(entry, inputs, plans, work, made_of=build.keys, budget=states_mb, progress=progress)


class _Build:
    def __init__(self, inputs: Inputs, plans: Plans, work: Work, profile: HardwareProfile) -> None:
        self._inputs, self._plans, self._work, self._profile = inputs, plans, work, profile
        self._steps = Steps(inputs)
        self._htp: Htp | None = None
        self.keys: dict[str | None, str] = {}  # adapter (None: the base) → key of the step that made its graphs

    def make(self, path: str, adapters: Sequence[AdapterInput]) -> ContextBinary:
        """Build and compile the graphs of the base, or of adapters with equal weights."""
        form, _, target = _parts(self._profile)
        names: set[str | None] = {adapter.name for adapter in adapters} or {None}
        stages = [stage for stage in self._plans.stages if stage.adapter_name in names]
        prompts = calibration_prompts(self._inputs.checkpoint, self._plans, stages or self._first())
        step = self._steps.static(path, adapters[0] if adapters else None, self._profile, prompts, compiler())
        self.keys |= dict.fromkeys(names, step.key)
        folder = self._work.folder / path
        if not self._work.has(step):
            self._work.clear(folder)
            self._build(folder, adapters[0] if adapters else None, prompts)
            self._htp = self._htp or find_htp(target, simulate=True)
            compile_contexts(folder, folder / CONTEXTS, form, self._htp)
            self._work.keep(step, *(path for path in folder.rglob("*") if path.is_file()))
        (binary,) = (folder / CONTEXTS).glob("*.bin")
        return ContextBinary(
            path=f"{path}/{CONTEXTS}/{binary.name}",
            adapter=None,
            soc_model=target.soc_model,
            htp_arch=target.htp_arch,
            compiler=compiler(),
        )

    def _first(self) -> list[PlannedStage]:
        """The first stage: it calibrates the base where the base answers no stage."""
        return [next(self._plans.stages)]

    def _build(self, folder: Path, adapter: AdapterInput | None, prompts: Sequence[Sequence[int]]) -> None:
        base = self._inputs.checkpoint
        form, quantization, _ = _parts(self._profile)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if adapter is None:
            build_static(base, folder, form, quantization, prompts=prompts)
            return
        with merged_weights(base, adapter.weights(base), scratch=self._work.scratch) as weights:
            build_static(base, folder, form, quantization, prompts=prompts, weights=weights)


def _parts(profile: HardwareProfile) -> tuple[StaticGraph, QdqQuantization, QnnOptions]:
    """The parts that the schema requires of every profile for this provider."""
    assert isinstance(profile.graph, StaticGraph)  # noqa: S101
    assert profile.qdq  # noqa: S101
    assert profile.qnn  # noqa: S101
    return profile.graph, profile.qdq, profile.qnn
