"""Builds the models of a bundle one after the other: graphs, trial, comparison with PEFT, prefix states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.build.measured_prompts import measured_prompts
from dualtune_edge.export.build.try_out import try_out
from dualtune_edge.export.compare.bundle import BundleComparison, PrefixKey, compare_bundle
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.compare.verdict import first_breach, refuse_beyond
from dualtune_edge.export.plan.inputs import Inputs, dynamic_model, quantizations_for
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.plan.subjects import subjects
from dualtune_edge.export.plan.variants import Exporters, ModelPlan, is_static
from dualtune_edge.export.publish.manifest import with_states, write_parity
from dualtune_edge.export.recipe_walk import Attempt, first_within
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.recipes import name_of
from dualtune_edge.export.states.write import WantedStates, state_files, write_states
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.manifest import ModelEntry
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.quantization import Quantization

OnComparison = Callable[[str, ParityReport], None]  # called with the name of a model and its comparison


@dataclass(frozen=True)
class BuiltModel:
    """A model whose files are in the work folder. `comparison`: the path of its comparison in the bundle."""

    entry: ModelEntry
    comparison: str
    parity: ParityReport
    warnings: tuple[str, ...] = ()

    def write_parity(self, folder: Path) -> None:
        """Write the comparison, once the work folder is sealed."""
        (folder / self.comparison).parent.mkdir(parents=True, exist_ok=True)
        write_parity(self.parity, folder / self.comparison)


@dataclass(frozen=True)
class ModelBuilder:
    """Builds models that have these in common."""

    spec: ExportSpec
    plans: Plans
    calibration: tuple[Case, ...]
    work: Work
    progress: Progress
    on_comparison: OnComparison
    exporters: Exporters

    def build(self, models: Sequence[ModelPlan]) -> tuple[BuiltModel, ...]:
        """Build every model, the primary first.

        Raises:
            EdgeError: what cannot be built, or is further from PEFT than the spec allows.

        """
        built: list[BuiltModel] = []
        for model in models:
            with self.progress.labelled("" if model.name == PRIMARY else model.name):
                build = self._static if is_static(model) else self._dynamic
                built.append(build(model, sum(state_bytes(done.entry) for done in built)))
        return tuple(built)

    def _static(self, model: ModelPlan, written: int) -> BuiltModel:
        """Build a model with static graphs; `written`: bytes of prefix states of earlier models."""
        (profile,) = model.profiles
        exporter = self.exporters[profile.provider]
        entry, warnings = exporter.export(model, self.plans, self.work, self.progress, states_mb=self._left(written))
        parity = ParityReport(skipped="static graphs are not compared here")
        return BuiltModel(entry, model.inputs.layout.parity, parity, warnings)

    def _dynamic(self, model: ModelPlan, written: int) -> BuiltModel:
        """Build a model with a dynamic graph; `written`: bytes of prefix states of earlier models."""
        recipes = quantizations_for(self.spec, model.inputs.profile)
        left = self._left(written)
        attempt = first_within(
            recipes, lambda recipe, earlier: self._attempt(model.inputs, recipe, earlier, left), self.work
        )
        inputs, graphs, parity = attempt.inputs, attempt.graphs, attempt.parity
        self.on_comparison(model.name, parity)
        refuse_beyond(parity.stages, parity.limits, tried=len(parity.refused))
        states = write_states(self._wanted(inputs, left), self.work, graphs, self.progress)
        parity = parity.model_copy(update={"states": states.parity})
        entry = with_states(dynamic_model(inputs, graphs.cache, model.name), self.plans, states.entries)
        return BuiltModel(entry, inputs.layout.parity, parity, states.warnings)

    def _left(self, written: int) -> int | None:
        """MB of prefix states that may still be written; None: any."""
        budget = self.spec.prefix_states_mb
        return None if budget is None else max(0, budget - -(-written // 1_000_000))

    def _attempt(
        self, inputs: Inputs, recipe: Quantization, earlier: Sequence[ParityReport] | None, states_mb: int | None
    ) -> Attempt:
        """Build the model by one recipe.

        Args:
            inputs: the inputs of the model.
            recipe: how weights are stored.
            earlier: comparisons by other recipes; None: there is one recipe.
            states_mb: MB of prefix states that will be written; None: any.

        """
        inputs = replace(inputs, quantization=recipe)
        graphs = BundleGraphs(inputs, self.work, self.progress, measured_prompts(inputs, self.plans))
        with contextlib.nullcontext() if earlier is None else self.progress.labelled(name_of(recipe)):
            parity = self._refusal(inputs, graphs, earlier)
            if parity is None:
                graphs.build()
                try_out(inputs, graphs, self.plans, self.work, self.progress)
                parity = self._compare(inputs, graphs, earlier, self._state_files(inputs, graphs, earlier, states_mb))
            return Attempt(inputs, graphs, parity)

    def _refusal(
        self, inputs: Inputs, graphs: BundleGraphs, earlier: Sequence[ParityReport] | None
    ) -> ParityReport | None:
        """The comparison by an interrupted export, if the recipe is beyond the limits: it is not built again."""
        comparison = self._comparison(inputs, graphs, earlier, {})
        if comparison is None or earlier is None or comparison.missing():
            return None
        parity = self._compare(inputs, graphs, earlier)
        return parity if first_breach(parity.stages, parity.limits) else None

    def _state_files(
        self, inputs: Inputs, graphs: BundleGraphs, earlier: Sequence[ParityReport] | None, states_mb: int | None
    ) -> dict[PrefixKey, Path]:
        """Files that take from the comparison the values of prefix states; none where another recipe may follow."""
        if earlier is not None:
            return {}
        return state_files(self._wanted(inputs, states_mb), self.work, graphs)

    def _wanted(self, inputs: Inputs, states_mb: int | None) -> WantedStates:
        return WantedStates(inputs, self.plans, self.spec, self.calibration, states_mb)

    def _compare(
        self,
        inputs: Inputs,
        graphs: BundleGraphs,
        earlier: Sequence[ParityReport] | None,
        state_files: Mapping[PrefixKey, Path] | None = None,
    ) -> ParityReport:
        """Compare every stage with PEFT in float32, unless the comparison is switched off."""
        comparison = self._comparison(inputs, graphs, earlier, state_files or {})
        if comparison is None:
            return ParityReport(skipped="it was switched off")
        with self.progress.phase(PhaseName.COMPARISON, len(comparison.subjects)) as phase:
            return compare_bundle(comparison, phase.advance)

    def _comparison(
        self,
        inputs: Inputs,
        graphs: BundleGraphs,
        earlier: Sequence[ParityReport] | None,
        state_files: Mapping[PrefixKey, Path],
    ) -> BundleComparison | None:
        """None: it is switched off."""
        asked = self.spec.parity
        if asked is None:
            return None
        compared = subjects(self.plans, asked.prompts)
        return BundleComparison(inputs, compared, asked, self.work, graphs, self.calibration, earlier, state_files)


def state_bytes(entry: ModelEntry) -> int:
    """Bytes of a model's prefix states."""
    return sum(state.nbytes for state in entry.states)
