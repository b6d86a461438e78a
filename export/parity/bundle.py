"""A bundle that is not published yet, compared with what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dualtune_edge.export.inputs import Inputs
from dualtune_edge.export.parity.calibration import Case
from dualtune_edge.export.parity.check import Subject, compare_stages
from dualtune_edge.export.parity.sides import BuildBefore, Graphs
from dualtune_edge.export.parity.streamed import LARGE, float32_bytes
from dualtune_edge.export.spec import ParitySpec
from dualtune_edge.runtime.engine import AdapterSource, ModelSource
from dualtune_edge.toolkit.manifest import MODEL_DIR
from dualtune_edge.toolkit.parity import ParityReport


def compare_bundle(
    inputs: Inputs,
    subjects: Sequence[Subject],
    spec: ParitySpec,
    folder: Path,
    *,
    paths: Mapping[str, str],
    calibration: Sequence[Case],
    build: BuildBefore,
    advance: Callable[[], None],
) -> ParityReport:
    """Compare every stage; nothing is refused here.

    Args:
        inputs: what the bundle was made of.
        subjects: its stages.
        spec: how much is compared.
        folder: the bundle with its graphs and adapters.
        paths: adapter name → its file or folder in the bundle.
        calibration: the user's own conversations.
        build: writes a graph in float32.
        advance: called after each stage.

    Raises:
        RequestError: a conversation is longer than the context.
        TemplateError: a template cannot render one.

    """
    checkpoint = inputs.checkpoint
    source = ModelSource(
        folder=folder / MODEL_DIR,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=tuple(
            AdapterSource(each.name, each.mode, folder / paths[each.name], each.sha256) for each in inputs.adapters
        ),
    )
    left_out = _left_out(inputs, spec)
    whole = inputs.quantization.bits == 32  # the bundle's graphs are those before quantization
    graphs = Graphs(source, None if left_out or whole else build, scratch=folder)
    stages = compare_stages(
        inputs, subjects, graphs, room=spec.argument_tokens, calibration=calibration, advance=advance
    )
    if whole:
        left_out = None
        stages = tuple(stage.model_copy(update={"before_quantization": stage.max_error}) for stage in stages)
    return ParityReport(
        before_quantization_skipped=left_out,
        prompts=spec.prompts,
        calibration=len(calibration),
        limits=spec.limits,
        stages=stages,
    )


def _left_out(inputs: Inputs, spec: ParitySpec) -> str | None:
    """Why the graph before quantization is not built; None: it is."""
    size = float32_bytes(inputs.checkpoint)
    if spec.before_quantization is False:
        return "the spec says so"
    if spec.before_quantization is None and size > LARGE:
        return f"{size / 1e9:.1f} GB in float32; `parity: {{before_quantization: true}}` compares it all the same"
    return None
