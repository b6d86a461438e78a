"""The bundle's own files: prompts, and the manifest that lists every file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from dualtune_edge.export.inputs import AdapterSource, Inputs
from dualtune_edge.export.plan import PlannedStage, Plans
from dualtune_edge.toolkit.files import safe_name, sha256_file
from dualtune_edge.toolkit.manifest import (
    MANIFEST,
    PROMPTS_DIR,
    SEAL,
    AdapterEntry,
    BaseInfo,
    FileEntry,
    Manifest,
    Stage,
    StateEntry,
    TokenizerInfo,
    ToolsetEntry,
)
from dualtune_edge.toolkit.parity import PARITY, ParityReport
from dualtune_edge.toolkit.prompts import PromptPlan

PACKAGES: Final = (
    "dualtune-edge", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "optimum", "peft", "torch", "transformers",
)  # fmt: skip


def write_prompts(plans: Plans, folder: Path) -> None:
    """One canonical JSON file a stage."""
    (folder / PROMPTS_DIR).mkdir()
    for stage in plans.stages:
        (folder / _prompt_path(stage)).write_bytes(_prompt_bytes(stage.plan))


def write_parity(report: ParityReport, folder: Path) -> None:
    """How far the graphs are from PEFT, or that it was not compared."""
    (folder / PARITY).write_bytes((report.model_dump_json() + "\n").encode())


def write_manifest(
    inputs: Inputs, plans: Plans, folder: Path, *, paths: Mapping[str, str], states: Mapping[str, StateEntry]
) -> Manifest:
    """Describe all that the folder holds by now.

    Args:
        inputs: what was read.
        plans: the stages.
        folder: the bundle, complete but for its manifest.
        paths: adapter name → its file or folder in the bundle.
        states: stage's name → the state of its prefix.

    """
    checkpoint = inputs.checkpoint
    manifest = Manifest(
        base=BaseInfo(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            fingerprint=checkpoint.fingerprint,
            task=checkpoint.task,
            context_length=checkpoint.context_length,
            vocab_size=checkpoint.vocab_size,
            end_of_turn=checkpoint.end_of_turn,
        ),
        tokenizer=TokenizerInfo(
            fingerprint=checkpoint.tokenizer_sha256,
            vocab_size=checkpoint.tokenizer.get_vocab_size(),
            bos=checkpoint.bos,
            eos=checkpoint.eos,
        ),
        cache=checkpoint.cache,
        quantization=inputs.quantization,
        profile=inputs.profile.name if inputs.profile else None,
        no_tool=inputs.no_tool,
        toolset_choice=_stage(plans.toolset_choice, states) if plans.toolset_choice else None,
        toolsets=tuple(
            ToolsetEntry(
                toolset=planned.toolset,
                selection=_stage(planned.selection, states),
                arguments={tool: _stage(stage, states) for tool, stage in planned.arguments.items()},
            )
            for planned in plans.toolsets
        ),
        adapters=tuple(_adapter(adapter, paths[adapter.name]) for adapter in inputs.adapters),
        states=tuple({entry.path: entry for entry in states.values()}.values()),
        files=tuple(_files(folder)),
        versions={package: metadata.version(package) for package in PACKAGES},
    )
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    (folder / SEAL).write_bytes(manifest.seal())
    return manifest


def _stage(planned: PlannedStage, states: Mapping[str, StateEntry]) -> Stage:
    state = states.get(planned.name)
    return Stage(
        prompt=_prompt_path(planned),
        adapter=planned.adapter.name if planned.adapter else None,
        state=state.path if state else None,
    )


def _prompt_path(stage: PlannedStage) -> str:
    return f"{PROMPTS_DIR}/{safe_name(stage.name)}.json"


def _prompt_bytes(plan: PromptPlan) -> bytes:
    return (plan.model_dump_json() + "\n").encode()


def _adapter(source: AdapterSource, path: str) -> AdapterEntry:
    return AdapterEntry(
        name=source.name,
        kind=source.kind,
        toolset=source.toolset,
        tool=source.tool,
        mode=source.mode,
        rank=source.rank,
        scale=source.scale,
        sha256=source.sha256,
        path=path,
    )


def _files(folder: Path) -> list[FileEntry]:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [
        FileEntry(path=path, size=(folder / path).stat().st_size, sha256=sha256_file(folder / path)) for path in paths
    ]
