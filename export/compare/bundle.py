"""Compares a bundle with PEFT before it is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.compare.cached_reference import LogitsCache
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.compare.sides import Beginning, Graphs
from dualtune_edge.export.compare.stages import compare_stages
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.export.reference.first_layers import enough_layers, first_layers
from dualtune_edge.export.reference.streamed import LARGE, float32_bytes
from dualtune_edge.export.spec.parts import ParitySpec
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.journal import Step
from dualtune_edge.export.work.memory import no_holes
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.parity import Depth, ParityReport, StageParity
from dualtune_edge.toolkit.bundle.quantization import Quantization

PrefixKey: TypeAlias = tuple[str | None, tuple[int, ...]]  # an adapter's path in the bundle, and tokens
_LARGE: Final = 8 << 30  # bytes of weights in float32, from which on not even the bundle's graphs are compared whole

_REFERENCE: Final = "reference"  # folder in the scratch folder


@dataclass(frozen=True)
class BundleComparison:
    """A comparison of a model's graphs with PEFT.

    Args:
        inputs: the inputs of the model.
        subjects: the stages.
        spec: how much is compared.
        work: the folder with the graphs and the adapters, and with finished comparisons.
        graphs: the graphs; they build others in float32.
        calibration: the user's own conversations.
        earlier: comparisons by other recipes in this work folder; None: there is one recipe. They share what the
            reference read, and the first one has the graph before quantization.
        state_files: an adapter's path in the bundle (None: the base) and a prefix under it → the file that takes the KV
            state, where the comparison computes it.

    """

    inputs: Inputs
    subjects: Sequence[Subject]
    spec: ParitySpec
    work: Work
    graphs: BundleGraphs
    calibration: Sequence[Case]
    earlier: Sequence[ParityReport] | None = None
    state_files: Mapping[PrefixKey, Path] = field(default_factory=dict)

    @cached_property
    def depth(self) -> Depth:
        """How much of the base is compared."""
        return depth_of(self.inputs, self.spec)

    @cached_property
    def steps(self) -> dict[str, Step]:
        """The journal's step of each stage, by name."""
        cases = [
            ([message.model_dump(mode="json") for message in case.messages], case.toolset, case.tool)
            for case in self.calibration
        ]
        settings: list[object] = [self.spec.argument_tokens, self.depth.model_dump()]
        settings += [len(self.earlier)] if self.earlier else []
        if self.calibration:
            settings += [cases, [self.graphs.compared(subject, ()).key for subject in self.subjects]]
        return {
            subject.stage.name: self.graphs.compared(subject, [*settings, *self._cut(subject.stage.name)])
            for subject in self.subjects
        }

    @cached_property
    def beginnings(self) -> dict[str, Beginning]:
        """Stages that several begin alike, and those whose prefix has a state in the bundle, by name.

        An activated adapter's prompts are read by the base up to the invocation, each for itself.
        """
        plain = [
            subject.stage for subject in self.subjects if not subject.stage.is_activated and subject.stage.plan.prefix
        ]
        paths = self.graphs.paths
        keys = {stage.name: (paths.get(stage.adapter_name or ""), stage.plan.prefix) for stage in plain}
        counts, names = Counter(keys.values()), dict[str | None, str | None]()
        own = self.depth.compared == self.depth.layers
        found = {}
        for stage in plain:
            key = keys[stage.name]
            adapter = names.setdefault(key[0], stage.adapter_name)
            file, shared = self.state_files.get(key) if own else None, counts[key] > 1
            if file or shared:
                found[stage.name] = Beginning(adapter, stage.plan.prefix, shared, file)
        return found

    def _cut(self, stage: str) -> Iterator[str]:
        """Which engines read the stage's prefix by itself: sums are rounded as forwards are cut."""
        beginning = self.beginnings.get(stage)
        if beginning:
            yield "prefix alone"
            if beginning.shared:
                yield "in both"

    def missing(self) -> Sequence[Subject]:
        """The stages that are not compared yet."""
        missing = [subject for subject in self.subjects if not self.work.has(self.steps[subject.stage.name])]
        # Earlier stages decide where a conversation leads.
        return self.subjects if missing and self.calibration else missing


def compare_bundle(comparison: BundleComparison, advance: Callable[[], None]) -> ParityReport:
    """Compare every stage, whatever the limits; `advance` is called after each.

    Raises:
        RequestError: a conversation is longer than the context.
        TemplateError: a template cannot render one.

    """
    spec, work, earlier = comparison.spec, comparison.work, comparison.earlier
    missing = comparison.missing()
    for _ in range(len(comparison.subjects) - len(missing)):
        advance()
    if missing:
        _compare(comparison, missing, advance)
    steps = [comparison.steps[subject.stage.name] for subject in comparison.subjects]
    stages = tuple(StageParity.model_validate_json(work.value(step)) for step in steps)
    if earlier:
        stages = tuple(
            stage.model_copy(update={"before_quantization": first.before_quantization})
            for stage, first in zip(stages, earlier[0].stages, strict=True)
        )
    depth = comparison.depth
    return ParityReport(
        before_quantization_skipped="the spec says so" if depth.before_quantization is None else None,
        depth=depth,
        prompts=spec.prompts,
        calibration=len(comparison.calibration),
        limits=spec.limits,
        stages=stages,
    )


def _compare(comparison: BundleComparison, missing: Sequence[Subject], advance: Callable[[], None]) -> None:
    """Compare stages, and keep the outcome of each in the work folder."""
    inputs, graphs, depth, work = comparison.inputs, comparison.graphs, comparison.depth, comparison.work
    whole = inputs.quantization.bits == 32  # the bundle's graphs are those before quantization
    reference = work.scratch / f"{_REFERENCE}-{graphs.reference(depth.compared).key[:16]}"
    cache = None if comparison.earlier is None else LogitsCache(reference, len(comparison.earlier))

    def keep(stage: StageParity) -> None:
        if whole:
            stage = stage.model_copy(update={"before_quantization": stage.max_error})
        logits = [cache.file(stage.stage)] if cache else []
        work.keep(comparison.steps[stage.stage], *logits, value=stage.model_dump_json())
        advance()

    bases, source = _Bases(inputs, work.scratch), graphs.source
    count = None if whole or comparison.earlier else depth.before_quantization
    with no_holes():
        compare_stages(
            inputs,
            missing,
            bases.graphs(source, graphs, depth.compared, inputs.quantization),
            bases.graphs(source, graphs, count, Quantization(bits=32)) if count else None,
            room=comparison.spec.argument_tokens,
            calibration=comparison.calibration,
            beginnings=comparison.beginnings,
            cache=cache,
            keep=keep,
        )


def depth_of(inputs: Inputs, spec: ParitySpec) -> Depth:
    """How many layers are compared: all of a small base, the first ones of a large base."""
    layers, size = inputs.checkpoint.cache.layers, float32_bytes(inputs.checkpoint)
    few = enough_layers(inputs.checkpoint, [adapter.folder for adapter in inputs.adapters])
    asked = min(layers, max(few, spec.layers)) if spec.layers else None
    compared = asked or (layers if size <= _LARGE else few)
    before = (asked or (layers if size <= LARGE else few)) if spec.before_quantization else None
    if inputs.quantization.bits == 32:
        before = compared
    return Depth(layers=layers, compared=compared, before_quantization=before)


class _Bases:
    """The checkpoint and its first layers."""

    def __init__(self, inputs: Inputs, scratch: Path) -> None:
        self._inputs, self._scratch = inputs, scratch
        self._made = {inputs.checkpoint.cache.layers: inputs.checkpoint}

    def graphs(self, source: ModelSource, built: BundleGraphs, layers: int, quantization: Quantization) -> Graphs:
        """Graphs of the first layers: the bundle's own if these are all layers, in this quantization."""
        if layers not in self._made:
            self._made[layers] = first_layers(self._inputs.checkpoint, layers)
        base = self._made[layers]

        def build(out: Path, merged: str | None) -> None:
            built.build_compared(out, base, quantization, merged)

        alike = quantization == self._inputs.quantization
        own = base is self._inputs.checkpoint and alike
        cache = source.cache.model_copy(update={"layers": layers}) if alike else base.cache
        return Graphs(
            base,
            replace(source, cache=cache),
            None if own else build,
            self._scratch,
            packing=own or quantization.bits != 32,
        )
