"""Writes the prompts, and the manifest that lists every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from dualtune_edge.export.plan.inputs import Inputs, base_info
from dualtune_edge.export.plan.prompts import PlannedStage, Plans, prompt_path
from dualtune_edge.export.plan.steps import PACKAGES
from dualtune_edge.export.work.journal import file_entry
from dualtune_edge.toolkit.bundle.kv_states import StateEntry
from dualtune_edge.toolkit.bundle.layout import MANIFEST, PROMPTS_DIR, SEAL
from dualtune_edge.toolkit.bundle.manifest import (
    FileEntry,
    Manifest,
    ModelEntry,
    Stage,
    TokenizerInfo,
    ToolsetEntry,
    Variant,
)
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan


def write_prompts(plans: Plans, folder: Path) -> None:
    """Write one canonical JSON file for each stage."""
    (folder / PROMPTS_DIR).mkdir()
    for stage in plans.stages:
        (folder / prompt_path(stage)).write_bytes(_prompt_bytes(stage.plan))


def write_parity(report: ParityReport, path: Path) -> None:
    """Write the comparison of a model with PEFT, or why there is none."""
    path.write_bytes((report.model_dump_json() + "\n").encode())


def with_states(entry: ModelEntry, plans: Plans, states: Mapping[str, StateEntry]) -> ModelEntry:
    """The model with its prefix states, by the name of the stage."""
    return entry.model_copy(
        update={
            "states": tuple({state.path: state for state in states.values()}.values()),
            "stage_states": {
                prompt_path(stage): states[stage.name].path for stage in plans.stages if stage.name in states
            },
        }
    )


def write_manifest(
    inputs: Inputs, plans: Plans, folder: Path, *, models: Sequence[ModelEntry], variants: tuple[Variant, ...]
) -> Manifest:
    """Describe every file of the folder.

    Args:
        inputs: the inputs of the primary model.
        plans: the stages.
        folder: the bundle, complete except for its manifest.
        models: the entries of the models, the primary one first.
        variants: none if the primary model is the only one.

    """
    checkpoint, (primary, *others) = inputs.checkpoint, models
    states = primary.stage_states
    if not isinstance(primary.quantization, Quantization):
        raise TypeError("the primary model's graph is a dynamic one")
    manifest = Manifest(
        version=2 if variants else 1,
        release=inputs.release,
        base=base_info(checkpoint),
        tokenizer=TokenizerInfo(
            fingerprint=checkpoint.tokenizer_sha256,
            vocab_size=checkpoint.tokenizer.get_vocab_size(),
            bos=checkpoint.bos,
            eos=checkpoint.eos,
        ),
        cache=primary.cache,
        quantization=primary.quantization,  # `inputs` have what was tried first
        profile=inputs.profile.name if inputs.profile else None,
        no_tool=inputs.no_tool,
        toolset_choice=_stage(plans.toolset_choice, states) if plans.toolset_choice else None,
        answer=_stage(plans.answer, states) if plans.answer else None,
        toolsets=tuple(
            ToolsetEntry(
                toolset=planned.toolset,
                selection=_stage(planned.selection, states),
                arguments={tool: _stage(stage, states) for tool, stage in planned.arguments.items()},
            )
            for planned in plans.toolsets
        ),
        adapters=primary.adapters,
        states=primary.states,
        models=tuple(others),
        variants=variants,
        files=tuple(_files(folder)),
        versions={package: metadata.version(package) for package in PACKAGES},
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    (folder / SEAL).write_bytes(manifest.seal())
    return manifest


def _stage(planned: PlannedStage, states: Mapping[str, str]) -> Stage:
    return Stage(
        prompt=prompt_path(planned),
        adapter=planned.adapter_name,
        state=states.get(prompt_path(planned)),
        copied=planned.copied,
    )


def _prompt_bytes(plan: PromptPlan) -> bytes:
    return (plan.model_dump_json() + "\n").encode()


def _files(folder: Path) -> list[FileEntry]:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [file_entry(folder / path, folder) for path in paths]
