"""The order of an export: read → plan → build → compare → publish. Nothing is published before all of it is well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from dualtune_edge.export.assemble import write_manifest, write_parity, write_prompts
from dualtune_edge.export.constraints import check_constraints
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.export.inputs import AdapterSource, Inputs, read_inputs
from dualtune_edge.export.merge import merged_weights
from dualtune_edge.export.parity.bundle import compare_bundle
from dualtune_edge.export.parity.calibration import Case, read_calibration
from dualtune_edge.export.parity.check import subjects
from dualtune_edge.export.parity.verdict import refuse_beyond
from dualtune_edge.export.plan import Plans, plan_prompts
from dualtune_edge.export.prefix_states import write_states
from dualtune_edge.export.progress import Stages
from dualtune_edge.export.report import ExportReport, Sizes
from dualtune_edge.export.spec import ExportSpec
from dualtune_edge.export.trial import Trial, refuse_without_effect
from dualtune_edge.toolkit.files import refuse_existing, safe_name, staged_folder
from dualtune_edge.toolkit.manifest import (
    ADAPTERS_DIR,
    MERGED_DIR,
    MODEL_DIR,
    PROMPTS_DIR,
    STATES_DIR,
    Manifest,
    Mode,
    Quantization,
)
from dualtune_edge.toolkit.parity import ParityReport
from dualtune_edge.toolkit.prompts import PromptPlan

_GRAPH_FILES: Final = frozenset({"model.onnx", "model.onnx.data", "genai_config.json"})
_TRIAL_TOKENS: Final = 16  # of a stage's own prompt: enough for every layer to attend to something


@dataclass(frozen=True)
class _Placed:
    """An adapter and where in the bundle it goes. Stages with one adapter share its file."""

    source: AdapterSource
    path: str


def run(
    spec: ExportSpec,
    output: Path,
    console: Console | None = None,
    *,
    tell_parity: Callable[[ParityReport], None] = lambda _: None,
) -> ExportReport:
    """Export `spec` to the folder `output`, whole or not at all.

    Args:
        spec: what to export.
        output: the bundle's folder; nothing may be there yet.
        console: where progress is shown; stderr if it is a terminal.
        tell_parity: given the comparison with PEFT when it is done, also where it then ends the export.

    Raises:
        EdgeError: what is wrong, and nothing was left behind.

    """
    start = time.perf_counter()
    refuse_existing(output)
    with Stages(console) as stages:
        with stages.stage("read and check"):
            inputs = read_inputs(spec)
            calibration = _calibration(spec, inputs)
        with stages.stage("plan prompts"):
            plans = plan_prompts(inputs)
            warnings = inputs.warnings + check_constraints(plans, inputs.checkpoint)
        with staged_folder(output) as folder:
            placed = tuple(_places(inputs))
            _build_base(inputs, placed, folder, stages)
            _build_merged(inputs, placed, folder, stages)
            _try_out(inputs, plans, placed, folder, stages)
            parity = _compare(spec, inputs, plans, placed, folder=folder, calibration=calibration, stages=stages)
            tell_parity(parity)
            refuse_beyond(parity.stages, parity.limits)
            paths = {each.source.name: each.path for each in placed}
            states = write_states(inputs, plans, folder, paths=paths, budget=spec.prefix_states_mb, stages=stages)
            with stages.stage("write manifest"):
                write_prompts(plans, folder)
                write_parity(parity, folder)
                manifest = write_manifest(inputs, plans, folder, paths=paths, states=states.entries)
    return ExportReport(
        path=str(output),
        seconds=round(time.perf_counter() - start, 3),
        stages=stages.reports,
        sizes=_sizes(manifest),
        warnings=(*warnings, *states.warnings),
        parity=parity,
    )


def _calibration(spec: ExportSpec, inputs: Inputs) -> tuple[Case, ...]:
    if spec.parity is None or spec.parity.calibration is None:
        return ()
    return read_calibration(spec.parity.calibration, [each.toolset for each in inputs.toolsets], inputs.no_tool)


def _places(inputs: Inputs) -> Iterator[_Placed]:
    by_content: dict[tuple[str, Mode], str] = {}
    for source in inputs.adapters:
        name = safe_name(source.name)
        own = f"{MERGED_DIR}/{name}" if source.mode == "merged" else f"{ADAPTERS_DIR}/{name}.onnx_adapter"
        yield _Placed(source, by_content.setdefault((source.sha256, source.mode), own))


def _once(placed: tuple[_Placed, ...], mode: Mode) -> list[_Placed]:
    """One adapter a file of this mode."""
    return list({each.path: each for each in reversed(placed) if each.source.mode == mode}.values())[::-1]


def _build_base(inputs: Inputs, placed: tuple[_Placed, ...], folder: Path, stages: Stages) -> None:
    """The base graph with its slots, and the external adapters."""
    external = _once(placed, "external")
    with stages.stage("build the base graph"):
        build_graph(inputs.checkpoint, folder / MODEL_DIR, inputs.quantization)
    with stages.stage("add LoRA slots"):
        slots = _add_slots(inputs, external, folder / MODEL_DIR)
    if not external:
        return
    (folder / ADAPTERS_DIR).mkdir()
    with stages.stage("write adapters", len(external)) as stage:
        for each in external:
            write_adapter(each.source.weights(inputs.checkpoint), slots, folder / each.path)
            stage.advance()


def _add_slots(inputs: Inputs, external: Sequence[_Placed], model: Path) -> SlotMap:
    extras = frozenset(extra for each in external for extra in each.source.extras)
    return add_slots(model, packed=inputs.checkpoint.packed, extras=extras)


def _build_merged(inputs: Inputs, placed: tuple[_Placed, ...], folder: Path, stages: Stages) -> None:
    """A graph of its own for every merged adapter."""
    merged = _once(placed, "merged")
    if not merged:
        return
    with stages.stage("merge adapters", len(merged)) as stage:
        for each in merged:
            _merge_one(each, inputs, folder)
            stage.advance()


def _merge_one(each: _Placed, inputs: Inputs, folder: Path) -> None:
    adapter = each.source.weights(inputs.checkpoint)
    with merged_weights(inputs.checkpoint, adapter, scratch=folder) as weights:
        build_graph(
            inputs.checkpoint, folder / each.path, inputs.quantization, weights=weights, base=folder / MODEL_DIR
        )
    for file in (folder / each.path).iterdir():
        if file.name not in _GRAPH_FILES:  # the tokenizer is the base's, in model/
            file.unlink()


def _try_out(inputs: Inputs, plans: Plans, placed: tuple[_Placed, ...], folder: Path, stages: Stages) -> None:
    """Run a forward of the base, of the base under each external adapter, and of each merged graph."""
    prompts = {planned.adapter.name: _some_tokens(planned.plan) for planned in plans.stages if planned.adapter}
    external, merged = _once(placed, "external"), _once(placed, "merged")
    with stages.stage("try out", 1 + len(external) + len(merged)) as stage:
        base = Trial(folder / MODEL_DIR, inputs.checkpoint.cache)
        base.logits(_some_tokens(next(plans.stages).plan))
        stage.advance()
        for each in external:
            tokens = prompts[each.source.name]
            refuse_without_effect(each.source.name, base.logits(tokens), base.logits(tokens, folder / each.path))
            stage.advance()
        del base  # each graph is as large: one at a time
        for each in merged:
            Trial(folder / each.path, inputs.checkpoint.cache).logits(prompts[each.source.name])
            stage.advance()


def _compare(
    spec: ExportSpec,
    inputs: Inputs,
    plans: Plans,
    placed: tuple[_Placed, ...],
    *,
    folder: Path,
    calibration: tuple[Case, ...],
    stages: Stages,
) -> ParityReport:
    """Every stage against PEFT in float32, if it is not switched off."""
    if spec.parity is None:
        return ParityReport(skipped="it was switched off")

    sources = {each.source.name: each.source for each in placed}

    def build(out: Path, merged: str | None) -> None:
        whole = Quantization(bits=32)
        if merged is None:
            build_graph(inputs.checkpoint, out, whole)
            _add_slots(inputs, _once(placed, "external"), out)
            return
        adapter = sources[merged].weights(inputs.checkpoint)
        with merged_weights(inputs.checkpoint, adapter, scratch=folder) as weights:
            build_graph(inputs.checkpoint, out, whole, weights=weights)

    compared = subjects(plans, spec.parity.prompts)
    with stages.stage("compare with PEFT", len(compared)) as stage:
        return compare_bundle(
            inputs,
            compared,
            spec.parity,
            folder,
            paths={each.source.name: each.path for each in placed},
            calibration=calibration,
            build=build,
            advance=stage.advance,
        )


def _some_tokens(plan: PromptPlan) -> tuple[int, ...]:
    """Any token serves where a template begins with the message, and so has no prefix."""
    return plan.prefix[:_TRIAL_TOKENS] or (0,)


def _sizes(manifest: Manifest) -> Sizes:
    def under(folder: str) -> int:
        return sum(file.size for file in manifest.files if file.path.startswith(f"{folder}/"))

    return Sizes(
        model=under(MODEL_DIR),
        adapters=under(ADAPTERS_DIR),
        merged=under(MERGED_DIR),
        prompts=under(PROMPTS_DIR),
        states=under(STATES_DIR),
        total=sum(file.size for file in manifest.files) + len(manifest.to_bytes()) + len(manifest.seal()),
    )
