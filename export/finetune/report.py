"""What a run says: events while it goes on, its report at the end, and the adapter's `training.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import SerializerFunctionWrapHandler, model_serializer

from dualtune_edge.export.adapter.training_files import TRAINING_RECORD
from dualtune_edge.export.finetune.samples.make import shown_toolsets
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate

if TYPE_CHECKING:
    from dualtune_edge.export.base.checkpoint import Checkpoint

RECORD: Final = TRAINING_RECORD
_OF_THIS_MACHINE: Final = {
    "base",
    "data",
    "held_out",
    "tools",
    "output",
    "template",
    "threads",
    "checkpoint_every",
    "resume",
    "toolsets",
    "all_toolsets",
    "own_toolset",
}


class Score(Frozen):
    """What of the held-out samples is right after a step: whole names, whole arguments, or whole calls."""

    step: int
    right: int  # samples whose learnt tokens are each the most probable one
    samples: int
    loss: float  # nats a learnt token

    @property
    def share(self) -> float:
        """Of the samples that are right."""
        return self.right / self.samples


class FinetuneReport(Frozen):
    """A finished run."""

    output: str
    objective: str
    tool: str | None
    samples: int
    dropped_long: int  # over max_length, with too_long='drop'
    dropped_kept: int  # turns of too frequent tools, by `keep`
    steps: int
    tokens: int  # fed; the prefix that samples share counts once a forward pass
    learnt: int  # tokens that the loss was taken of
    losses: tuple[float, ...]  # of each step, nats a learnt token
    held_out: tuple[Score, ...]  # of each measurement
    kept: int  # the step whose adapter this is
    seconds: float  # of the steps
    warnings: tuple[str, ...]  # about the samples

    @property
    def kept_score(self) -> Score | None:
        """Of the step that is kept, if anything was held out."""
        return next((score for score in self.held_out if score.step == self.kept), None)


class Source(Frozen):
    """An input file of a run, or a toolset that its prompts show."""

    name: str
    sha256: str


class ToolsetOrigin(Frozen):
    """One of the toolsets of a spec, and its input files. `named`: of its data the lines that name it."""

    name: str
    description: str
    tools: Source | None
    data: Source
    named: bool


class Origin(Frozen):
    """The inputs and settings of a run: equal on every machine.

    An adapter of one toolset has `data` and `tools`; that of the toolset choice, and of a spec's answer, `toolsets`.
    Of a template that shows all toolsets it has `all_toolsets`, with hashes of what is shown, and `own_toolset`, whose
    calls are learnt; else both are left out.
    """

    format: int = 2  # 1: "objective" was "stage", and batches were of samples of like length
    base: str
    base_fingerprint: str
    data: Source | None
    held_out: Source | None = None  # a file; not a share of the data
    tools: Source | None
    toolsets: tuple[ToolsetOrigin, ...] = ()
    all_toolsets: tuple[Source, ...] = ()
    own_toolset: str | None = None
    template_sha256: str
    settings: dict[str, Any]  # those that influence the result
    versions: dict[str, str]

    @model_serializer(mode="wrap")
    def _without_toolsets(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        alone = () if self.all_toolsets else ("all_toolsets", "own_toolset")
        return {name: value for name, value in dump(self).items() if name not in alone}


class Record(Origin):
    """The adapter's `training.json`."""

    samples: int
    dropped_long: int
    dropped_kept: int
    steps: int
    learnt: int
    losses: tuple[float, ...]
    scores: tuple[Score, ...] = ()  # of what was held out
    kept: int | None = None  # the step whose adapter it is; None: the last one

    @property
    def origin(self) -> Origin:
        """The inputs and settings of its run."""
        return Origin.model_validate({name: getattr(self, name) for name in Origin.model_fields})


def origin(settings: FinetuneSettings, base: Checkpoint, template: ChatTemplate) -> Origin:
    """The origin of a run. Runs with equal origins give equal adapters."""
    shown = shown_toolsets(settings, template)
    listed = shown.toolsets if shown else ()
    unused = set() if settings.held_out or settings.held_out_share else {"held_out_share", "measure_every"}
    low_bits = {"base_bits": settings.base_bits, "optimizer": settings.optimizer}
    unused |= {name for name, value in low_bits.items() if value in (None, "adamw")}  # runs of before have no such name
    packages = ("peft", "torch", "transformers", *(["bitsandbytes"] if low_bits.keys() - unused else []))
    return Origin(
        base=base.name,
        base_fingerprint=base.fingerprint,
        data=_source(settings.data) if settings.data else None,
        held_out=_source(settings.held_out) if settings.held_out else None,
        tools=_source(settings.tools) if settings.tools else None,
        toolsets=tuple(
            ToolsetOrigin(
                name=toolset.name,
                description=toolset.description,
                tools=_source(toolset.tools) if toolset.tools else None,
                data=_source(toolset.data),
                named=toolset.named,
            )
            for toolset in settings.toolsets
        ),
        all_toolsets=tuple(Source(name=toolset.name, sha256=toolset.sha256) for toolset in listed),
        own_toolset=settings.own_toolset if listed else None,
        template_sha256=template.sha256,
        settings=settings.model_dump(mode="json", exclude=_OF_THIS_MACHINE | unused),
        versions={package: version(package) for package in packages},
    )


def _source(path: Path) -> Source:
    return Source(name=path.name, sha256=sha256_file(path))


def fingerprint(origin: Origin) -> str:
    """SHA-256 of an origin."""
    return hashlib.sha256(origin.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Start:
    """The samples are made; the first step comes next."""

    samples: int
    held_out: int
    done: int  # steps made before, of a run that goes on
    steps: int  # of the whole run
    processes: int
    threads: int  # of each
    device: str  # of PyTorch
    warnings: tuple[str, ...]  # about the samples


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was made."""

    step: int  # from 1
    steps: int
    loss: float  # nats a learnt token


@dataclass(frozen=True, slots=True)
class Measurement:
    """The held-out samples were measured after a step."""

    score: Score


@dataclass(frozen=True, slots=True)
class Interruption:
    """A signal ended the run; its state is saved if it made a step."""

    step: int  # the last one that was made; 0: none
    steps: int


Event: TypeAlias = Start | Step | Measurement | Interruption
OnEvent: TypeAlias = Callable[[Event], None]
