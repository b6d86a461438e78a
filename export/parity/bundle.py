"""A bundle that is not published yet, compared with what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dualtune_edge.export.graphs import BundleGraphs
from dualtune_edge.export.inputs import Inputs
from dualtune_edge.export.parity.calibration import Case
from dualtune_edge.export.parity.check import Subject, compare_stages
from dualtune_edge.export.parity.remembered import Memory
from dualtune_edge.export.parity.sides import Graphs
from dualtune_edge.export.parity.streamed import LARGE, float32_bytes
from dualtune_edge.export.spec import ParitySpec
from dualtune_edge.export.work_folder import Step, Work
from dualtune_edge.runtime.engine import AdapterSource, ModelSource
from dualtune_edge.toolkit.parity import ParityReport, StageParity

_REFERENCE: Final = "reference"  # in the scratch folder


def compare_bundle(
    inputs: Inputs,
    subjects: Sequence[Subject],
    spec: ParitySpec,
    work: Work,
    *,
    graphs: BundleGraphs,
    calibration: Sequence[Case],
    advance: Callable[[], None],
    earlier: Sequence[ParityReport] | None = None,
) -> ParityReport:
    """Compare every stage; nothing is refused here.

    Args:
        inputs: what the bundle was made of.
        subjects: its stages.
        spec: how much is compared.
        work: the bundle with its graphs and adapters; stages that were compared before are taken from there.
        graphs: say where they are, and build others in float32.
        calibration: the user's own conversations.
        advance: called after each stage.
        earlier: comparisons of the same, otherwise quantized, in this work folder; None: there will be no other. What
            the reference read for one it does not read again, and the graph before quantization is the first one's.

    Raises:
        RequestError: a conversation is longer than the context.
        TemplateError: a template cannot render one.

    """
    whole = inputs.quantization.bits == 32
    left_out = _left_out(inputs, spec, earlier)
    memory = None if earlier is None else Memory(work.scratch / _REFERENCE, len(earlier))
    steps = _steps(subjects, spec, graphs, calibration, before=left_out is None, earlier=len(earlier or ()))
    missing = [subject for subject in subjects if not work.has(steps[subject.stage.name])]
    if missing and calibration:
        missing = list(subjects)  # where a conversation leads to, the stages before decide
    for _ in range(len(subjects) - len(missing)):
        advance()

    def keep(stage: StageParity) -> None:
        if whole:  # the bundle's graphs are those before quantization
            stage = stage.model_copy(update={"before_quantization": stage.max_error})
        work.keep(steps[stage.stage], *([memory.file(stage.stage)] if memory else ()), value=stage.model_dump_json())
        advance()

    if missing:
        before = None if left_out or whole or earlier else graphs.build_before
        opened = Graphs(_source(inputs, work, graphs), before, scratch=work.scratch)
        compare_stages(
            inputs,
            missing,
            opened,
            room=spec.argument_tokens,
            calibration=calibration,
            memory=memory,
            keep=keep,
        )
    found = tuple(StageParity.model_validate_json(work.value(steps[subject.stage.name])) for subject in subjects)
    if earlier:
        found = tuple(
            stage.model_copy(update={"before_quantization": first.before_quantization})
            for stage, first in zip(found, earlier[0].stages, strict=True)
        )
    return ParityReport(
        before_quantization_skipped=left_out,
        prompts=spec.prompts,
        calibration=len(calibration),
        limits=spec.limits,
        stages=found,
    )


def is_compared(
    inputs: Inputs,
    subjects: Sequence[Subject],
    spec: ParitySpec,
    work: Work,
    *,
    graphs: BundleGraphs,
    calibration: Sequence[Case],
    earlier: Sequence[ParityReport] | None,
) -> bool:
    """Whether `compare_bundle` has been through with it, so that it needs no graph; its arguments."""
    before = _left_out(inputs, spec, earlier) is None
    steps = _steps(subjects, spec, graphs, calibration, before=before, earlier=len(earlier or ()))
    return all(work.has(step) for step in steps.values())


def _steps(
    subjects: Sequence[Subject],
    spec: ParitySpec,
    graphs: BundleGraphs,
    calibration: Sequence[Case],
    *,
    before: bool,
    earlier: int,
) -> dict[str, Step]:
    """By stage."""
    own = [([each.model_dump(mode="json") for each in case.messages], case.toolset, case.tool) for case in calibration]
    settings: list[object] = [spec.argument_tokens, before, *([earlier] if earlier else ())]
    if calibration:
        settings += [own, [graphs.compared(each, ()).key for each in subjects]]
    return {each.stage.name: graphs.compared(each, settings) for each in subjects}


def _source(inputs: Inputs, work: Work, graphs: BundleGraphs) -> ModelSource:
    checkpoint, paths = inputs.checkpoint, graphs.paths
    return ModelSource(
        folder=work.folder / inputs.place.model,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=tuple(
            AdapterSource(each.name, each.mode, work.folder / paths[each.name], each.sha256) for each in inputs.adapters
        ),
    )


def _left_out(inputs: Inputs, spec: ParitySpec, earlier: Sequence[ParityReport] | None) -> str | None:
    """Why the graph before quantization is not compared; None: it is."""
    if earlier:
        return earlier[0].before_quantization_skipped
    if inputs.quantization.bits == 32:
        return None
    size = float32_bytes(inputs.checkpoint)
    if spec.before_quantization is False:
        return "the spec says so"
    if spec.before_quantization is None and size > LARGE:
        return f"{size / 1e9:.1f} GB in float32; `parity: {{before_quantization: true}}` compares it all the same"
    return None
