"""Decoupled fine-tuning: one run, from trajectories to an adapter folder."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from dualtune_edge.export.adapter.config import CONFIG
from dualtune_edge.export.adapter.tensors import WEIGHTS
from dualtune_edge.export.adapter.training_files import BASE_FINGERPRINT
from dualtune_edge.export.base.safetensors_file import system_errors
from dualtune_edge.export.finetune.held_out import best
from dualtune_edge.export.finetune.loading.base import Base, Precision
from dualtune_edge.export.finetune.loading.low_bits import require_adamw_8bit
from dualtune_edge.export.finetune.processes import Processes, speaks
from dualtune_edge.export.finetune.report import (
    RECORD,
    FinetuneReport,
    OnEvent,
    Origin,
    Record,
    Start,
    fingerprint,
    origin,
)
from dualtune_edge.export.finetune.run_state import RunState, StateFile, state_path
from dualtune_edge.export.finetune.samples.invocation import invocation_of
from dualtune_edge.export.finetune.samples.make import Samples, listed_tools, make_prompter, make_samples
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
from dualtune_edge.export.finetune.settings import FinetuneSettings, Objective
from dualtune_edge.export.finetune.trainer import Trainer
from dualtune_edge.profiles.detect import detect
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import published_folder, refuse_existing
from dualtune_edge.toolkit.prompts.chat_template import CHAT_TEMPLATE, ChatTemplate

# The joint adapter writes whole calls, in the layout of the arguments' stage.
_TEMPLATES: Final[dict[Objective, str]] = {
    "toolset": "selection",
    "selection": "selection",
    "arguments": "arguments",
    "joint": "arguments",
    "answer": "answer",
}


def finetune(
    settings: FinetuneSettings,
    on_event: OnEvent | None = None,
    *,
    base: Base | None = None,
    files: TrajectoryFiles | None = None,
) -> FinetuneReport:
    """Train one adapter and publish its folder.

    Args:
        settings: of the run.
        on_event: gets the start, every step and an interruption.
        base: the loaded `settings.base`, where several adapters are trained; None loads it for this run.
        files: the data that is read already, where several adapters are trained.

    Raises:
        EdgeError: of the kind of what cannot be used: the output, the base, the tools, the template or the data.

    """
    refuse_existing(settings.output)
    with opened(settings, base) as (loaded, processes):
        return train(RunData.read(settings, loaded, files), loaded, processes, on_event)


@contextlib.contextmanager
def opened(settings: FinetuneSettings, base: Base | None = None) -> Iterator[tuple[Base, Processes]]:
    """The settings' base on the device of this process, or the one that is loaded already; and all processes.

    Raises:
        MissingExtraError: a package that the settings need is not installed.
        SpecError: the loaded base is held in another way than the settings say.
        EdgeError: as for `Base.open`.

    """
    processes = Processes()  # first: on CPUs it divides the cores among those of a machine
    if settings.optimizer == "adamw-8bit":
        require_adamw_8bit(processes.device)
    with threads(settings.threads):
        if base:
            base.check_precision(settings)
            yield base, processes
            return
        shards = processes.count if processes.shards_base else 1
        with Base.open(settings.base, processes.device, Precision.of(settings), shards) as loaded:
            yield loaded, processes


@dataclass(frozen=True)
class RunData:
    """What a run is made from, read and checked. `invocation`: of an activated adapter."""

    settings: FinetuneSettings
    template: ChatTemplate
    invocation: tuple[int, ...] | None
    samples: Samples
    origin: Origin

    @classmethod
    def read(cls, settings: FinetuneSettings, base: Base, files: TrajectoryFiles | None = None) -> RunData:
        """Read the data of a run, and make its samples.

        Raises:
            EdgeError: as for `finetune`.

        """
        template = template_of(settings, base)
        prompter = make_prompter(settings, template, base.checkpoint.tokenizer, listed_tools(settings))
        return cls(
            settings=settings,
            template=template,
            invocation=invocation_of(prompter) if settings.activated else None,
            samples=make_samples(settings, prompter, _max_length(settings, base), files),
            origin=origin(settings, base.checkpoint, template),
        )


def train(data: RunData, base: Base, processes: Processes, on_event: OnEvent | None = None) -> FinetuneReport:
    """`finetune` of what is read already, on a base that is `opened`."""
    settings, samples = data.settings, data.samples
    refuse_existing(settings.output)
    on_event = on_event if on_event and speaks() else _unheard
    with prepared(data, base, processes) as run, _output(settings.output) as folder:
        state, trainer = run.state, run.trainer
        counts = {
            "samples": len(samples.samples),
            "dropped_long": samples.dropped_long,
            "dropped_kept": samples.dropped_kept,
        }
        processes.meet()  # the first one may write and remove files only when all have read them
        processes.reseed(settings.seed)
        on_event(
            Start(
                samples=len(samples.samples),
                held_out=len(samples.held),
                done=len(state.losses),
                steps=trainer.steps,
                processes=processes.count,
                threads=torch.get_num_threads(),
                device=str(base.model.device),
                warnings=samples.warnings,
            )
        )
        started = time.perf_counter()
        trainer.run(run.file, on_event)
        seconds = time.perf_counter() - started
        outcome = {"steps": len(state.losses), "learnt": state.learnt, "losses": tuple(state.losses)}
        kept = best(trainer.scores).step if trainer.scores else len(state.losses)
        record = Record(**data.origin.model_dump(), **counts, **outcome, scores=trainer.scores, kept=kept)
        if folder:
            _write_adapter_folder(folder, run.adapted, getattr(torch, settings.dtype), data.template, record)
    if speaks():
        run.file.remove()
    return FinetuneReport(
        output=str(settings.output),
        objective=settings.objective,
        tool=settings.tool,
        tokens=state.tokens,
        seconds=seconds,
        warnings=samples.warnings,
        held_out=trainer.scores,
        kept=kept,
        **counts,
        **outcome,
    )


@dataclass(frozen=True)
class PreparedRun:
    """A run before its next step. `adapted`: the base with the adapter."""

    file: StateFile
    state: RunState
    adapted: PeftModel
    trainer: Trainer


@contextlib.contextmanager
def prepared(data: RunData, base: Base, processes: Processes) -> Iterator[PreparedRun]:
    """Add the adapter, at its initial values or those of the checkpoint; it is removed at the end.

    Raises:
        SpecError: a target names no module of the base.
        OutputError: the checkpoint is missing, not asked for, or of another run.

    """
    settings, invocation = data.settings, data.invocation
    file = StateFile(state_path(settings.output), settings.checkpoint_every)
    state = file.load(fingerprint(data.origin), resume=settings.resume)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        with base.adapted(settings, invocation) as adapted:
            trainer = Trainer(settings, adapted, data.samples, state, processes=processes, invocation=invocation)
            yield PreparedRun(file, state, adapted, trainer)


def _output(target: Path) -> AbstractContextManager[Path | None]:
    """The folder that becomes the adapter's; None in a process that writes nothing."""
    return published_folder(target) if speaks() else contextlib.nullcontext()


def _max_length(settings: FinetuneSettings, base: Base) -> int:
    """The largest number of tokens of a sample: the settings', or the base's context length."""
    context = base.checkpoint.context_length
    if settings.max_length and settings.max_length > context:
        raise SpecError(
            "max_length",
            found=str(settings.max_length),
            expected=f"at most {context}, the context length of {base.checkpoint.name}",
            fix="Lower it, or leave it out.",
        )
    return settings.max_length or context


def _unheard(_event: object) -> None:
    """Nobody listens."""


def template_of(settings: FinetuneSettings, base: Base) -> ChatTemplate:
    """The settings' template, or the objective's built-in one; for answers the base's own, as on the device.

    Raises:
        TemplateError: the file cannot be read.

    """
    checkpoint = base.checkpoint
    if settings.template:
        return ChatTemplate.read(settings.template, bos=checkpoint.bos, eos=checkpoint.eos)
    if settings.objective == "answer" and checkpoint.chat_template is not None and not settings.shares_toolsets:
        where = f"chat template of {checkpoint.name}"
        return ChatTemplate(checkpoint.chat_template, where=where, bos=checkpoint.bos, eos=checkpoint.eos)
    name = _TEMPLATES[settings.objective]
    if settings.shares_toolsets:
        name = "toolsets"
    elif settings.activated and settings.objective not in ("toolset", "answer"):  # whose prompts begin differently
        name = "activated"
    file = resources.files("dualtune_edge.toolkit") / "templates" / f"{name}.jinja"
    where = f"built-in template for {name}"
    return ChatTemplate(file.read_text(encoding="utf-8"), where=where, bos=checkpoint.bos, eos=checkpoint.eos)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute with this many threads inside the block; None: one for each physical core.

    PyTorch's own number knows OMP_NUM_THREADS and the affinity, `detect` the quota of a container: the smaller counts.
    The load does not: on one machine equal runs give equal adapters, and another number adds in another order.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or min(before, detect().cpu.physical_cores))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_adapter_folder(
    folder: Path, adapted: PeftModel, dtype: torch.dtype, template: ChatTemplate, record: Record
) -> None:
    """Write all files. Equal adapters give equal bytes."""
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    with system_errors():
        save_file(
            {name: tensor.to(dtype).contiguous() for name, tensor in sorted(tensors.items())},
            folder / WEIGHTS,
            metadata={"format": "pt"},
        )
    config = adapted.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    _write_text(folder / CONFIG, json.dumps(plain, indent=2, sort_keys=True))
    _write_text(folder / CHAT_TEMPLATE, template.source, end="")
    _write_text(folder / RECORD, record.model_dump_json(indent=1))
    _write_text(folder / BASE_FINGERPRINT, record.base_fingerprint)


def _write_text(path: Path, text: str, *, end: str = "\n") -> None:
    path.write_text(text + end, encoding="utf-8", newline="\n")
