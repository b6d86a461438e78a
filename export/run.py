"""The order of an export: read → plan → build → compare → publish. A bundle is published whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from dualtune_edge.export.budget import refuse_built_over_budget, refuse_over_budget
from dualtune_edge.export.compare.calibration import Calibration, read_calibration
from dualtune_edge.export.estimate import Estimate, estimate, refuse_without_room
from dualtune_edge.export.models import ModelBuilder, OnComparison
from dualtune_edge.export.plan.added_tokens import check_added_tokens
from dualtune_edge.export.plan.constraints import check_constraints, constraint_tokenizer
from dualtune_edge.export.plan.copied import CopiedStanding, Example, Examples, plan_copied, read_examples
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.plan.licences import PlannedLicences, plan_licences
from dualtune_edge.export.plan.prompts import Plans, plan_prompts
from dualtune_edge.export.plan.variants import (
    Exporters,
    ModelPlan,
    check_prompts,
    is_static,
    plan_models,
    write_profiles,
)
from dualtune_edge.export.publish.manifest import write_manifest, write_prompts
from dualtune_edge.export.publish.report import ExportReport, Sizes
from dualtune_edge.export.qnn.exporter import QnnExporter
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.work.folder import Work, refuse_taken
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.export.work.threads import fixed_threads
from dualtune_edge.profiles.schema import QNN_PROVIDER
from dualtune_edge.toolkit.bundle.layout import (
    ADAPTERS_DIR,
    MERGED_DIR,
    MODEL_DIR,
    PROMPTS_DIR,
    STATES_DIR,
    VARIANTS_DIR,
)
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.bundle.sharing import variant_sizes
from dualtune_edge.toolkit.files import refuse_existing

EXPORTERS: Final[Exporters] = {QNN_PROVIDER: QnnExporter()}


def run(
    spec: ExportSpec,
    output: Path,
    console: Console | None = None,
    *,
    reuse: Path | None = None,
    force: bool = False,
    on_kept: Callable[[Path, int], None] = lambda *_: None,
    on_comparison: OnComparison = lambda *_: None,
) -> ExportReport:
    """Export `spec` to the folder `output`, whole or not at all.

    Parts that an interrupted or failed export to `output` finished are used again if their inputs are the same
    (`work.folder`).

    Args:
        spec: what to export.
        output: the bundle's folder; nothing may be there yet.
        console: shows the progress; by default stderr, if it is a terminal.
        reuse: an earlier bundle, from which equal parts are copied.
        force: begin even if the estimate says that disk or memory are not enough.
        on_kept: called with the folder that a failed export leaves, and its bytes.
        on_comparison: called with the name of each model and its comparison with PEFT, also if that ends the export.

    Raises:
        EdgeError: what is wrong. Finished parts are kept beside the output.

    """
    start = time.perf_counter()
    refuse_taken(output)
    with fixed_threads(), Progress(console) as progress:
        read = _read(spec, progress)
        inputs, plans = read.inputs, read.plans
        if not force:
            refuse_without_room(estimate(spec, inputs, plans, output, read.others), output)
        with Work(output, reuse, on_kept=on_kept) as work:
            builder = ModelBuilder(spec, plans, read.calibration.cases, work, progress, on_comparison, EXPORTERS)
            built = builder.build(read.models)
            with progress.phase(PhaseName.MANIFEST):
                work.seal()
                write_prompts(plans, work.folder)
                read.licences.write_to(work.folder)
                for model in built:
                    model.write_parity(work.folder)
                variants = write_profiles(read.models, work)
                entries = [model.entry for model in built]
                manifest = write_manifest(inputs, plans, work.folder, models=entries, variants=variants)
                refuse_built_over_budget(read.models, manifest)
            reused = work.reused
            work.publish()
    return ExportReport(
        path=str(output),
        seconds=round(time.perf_counter() - start, 3),
        phases=progress.reports,
        reused=reused,
        sizes=_sizes(manifest),
        variants=variant_sizes(manifest),
        copied=read.copied,
        licences=read.licences.licences,
        warnings=(*read.warnings, *(warning for model in built for warning in model.warnings)),
        parity=built[0].parity,
    )


def preflight(spec: ExportSpec, output: Path, console: Console | None = None) -> Estimate:
    """What `run` would need. Everything is read and checked, and nothing is written.

    Raises:
        EdgeError: what `run` would refuse before it begins, except for want of room.

    """
    refuse_existing(output)
    with Progress(console) as progress:
        read = _read(spec, progress)
    needed = estimate(spec, read.inputs, read.plans, output, read.others)
    return needed.model_copy(update={"warnings": read.warnings})


@dataclass(frozen=True)
class _Read:
    inputs: Inputs
    models: tuple[ModelPlan, ...]
    calibration: Calibration
    plans: Plans
    copied: tuple[CopiedStanding, ...]
    licences: PlannedLicences
    warnings: tuple[str, ...]

    @property
    def others(self) -> tuple[Inputs, ...]:
        """The inputs of the dynamic models besides the primary one."""
        return tuple(model.inputs for model in self.models[1:] if not is_static(model))


def _read(spec: ExportSpec, progress: Progress) -> _Read:
    with progress.phase(PhaseName.READ):
        inputs = read_inputs(spec)
        licences = plan_licences(spec, inputs)
        models = plan_models(spec, inputs, EXPORTERS)
        refuse_over_budget(models)
        calibration = _calibration(spec, inputs)
        examples = sum(map(read_examples, spec.toolsets), Examples())
    with progress.phase(PhaseName.PROMPTS):
        plans = plan_prompts(inputs)
        check_prompts(models, plans, EXPORTERS)
        check_added_tokens(plans, inputs.checkpoint)
        tokenizer = constraint_tokenizer(inputs.checkpoint)
        constraints = check_constraints(plans, tokenizer)
        warnings = inputs.warnings + licences.warnings + plans.warnings + calibration.warnings + constraints
        cases = calibration.cases
        asked = tuple(Example(case.messages, case.call, case.toolset) for case in cases if case.call)
        copied = plan_copied(spec, plans, (*examples.calls, *asked), tokenizer)
        warnings += examples.warnings + copied.warnings
    return _Read(inputs, models, calibration, copied.plans, copied.standings, licences, warnings)


def _calibration(spec: ExportSpec, inputs: Inputs) -> Calibration:
    if spec.parity is None or spec.parity.calibration is None:
        return Calibration()
    return read_calibration(spec.parity.calibration, [source.toolset for source in inputs.toolsets], inputs.no_tool)


def _sizes(manifest: Manifest) -> Sizes:
    def under(folder: str) -> int:
        return sum(file.size for file in manifest.files if file.path.startswith(f"{folder}/"))

    return Sizes(
        model=under(MODEL_DIR),
        adapters=under(ADAPTERS_DIR),
        merged=under(MERGED_DIR),
        prompts=under(PROMPTS_DIR),
        states=under(STATES_DIR),
        variants=under(VARIANTS_DIR),
        total=sum(file.size for file in manifest.files) + len(manifest.to_bytes()) + len(manifest.seal()),
    )
