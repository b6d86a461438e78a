"""The kit's adapters, made by `finetune`: 2 selections, 25 arguments. Also activated and joint ones, to compare."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
from dualtune_edge.export.finetune.settings import FinetuneSettings, Objective
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets, trajectories
from dualtune_edge_kit.training.data.typed import conversations as typed

PLAIN: Final = 20_000  # conversations, over both toolsets
TYPED: Final = 20_000  # as people type them
ACTIVATED: Final = "activated"  # the template of activated adapters, and their folder beside that of the others
RANK: Final = 5  # of every adapter, joint ones too


@dataclass(frozen=True)
class Run:
    """One adapter: what it learns, and the folder it goes to, below the kit's adapters."""

    toolset: str
    objective: Objective
    tool: str | None

    @property
    def folder(self) -> str:
        """Relative to the adapters' folder."""
        return f"{self.toolset}/{self.objective}" + (f"/{self.tool}" if self.tool else "")


@dataclass(frozen=True)
class Length:
    """How long the adapters of one objective are trained, and in which template."""

    steps: int
    batch: int  # samples a step
    template: str


Plan: TypeAlias = Mapping[Objective, Length]

# Where both cores are busy, a selection takes a quarter of an hour and arguments take four minutes.
KIT: Final[Plan] = {"selection": Length(600, 24, "selection"), "arguments": Length(150, 16, "arguments")}
# As many samples for the one joint adapter of a toolset, which learns whole calls, as for its decoupled ones together.
EQUAL: Final[Plan] = {
    "selection": Length(150, 16, "selection"),
    "arguments": Length(11, 16, "arguments"),
    "joint": Length(300, 16, "base"),
}


def all_runs() -> list[Run]:
    """The kit's adapters, but for the one that chooses the toolset. A tool without arguments has none."""
    made: list[Run] = []
    for name in toolsets.NAMES:
        made.append(Run(name, "selection", None))
        made += [
            Run(name, "arguments", tool.name) for tool in toolsets.load(name).toolset.tools if tool.takes_arguments
        ]
    return made


def joint_runs() -> list[Run]:
    """One adapter a toolset, for both stages."""
    return [Run(name, "joint", None) for name in toolsets.NAMES]


def make(
    base_folder: Path,
    data: Path,
    out: Path,
    wanted: list[Run],
    *,
    seed: int,
    say: Callable[[str], None],
    plan: Plan = KIT,
    activated: bool = False,
) -> None:
    """Train the wanted adapters that ``out`` lacks, on the conversations in ``data``, which are made if missing.

    One that was stopped goes on from its checkpoint.
    """
    if not data.exists():
        trajectories.write(data, list(conversations(seed)))
    files = TrajectoryFiles()
    with Base.open(base_folder) as base:
        for run in wanted:
            if not (out / run.folder).exists():
                made = settings(base_folder, data, out, run, seed, plan=plan, activated=activated)
                report = finetune(resumed(made), base=base, files=files)
                first, last = report.losses[0], sum(report.losses[-10:]) / 10
                say(f"{run.folder}: {report.samples} samples, loss {first:.3f} -> {last:.4f}, {report.seconds:.0f} s")


def conversations(seed: int) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """What all adapters learn from, with the toolset of each."""
    plain = trajectories.generate(seed, "train", PLAIN)
    written = (view for talk in typed.conversations(seed, "train", TYPED) for view in typed.views(talk))
    return itertools.chain(plain, written)


def resumed(made: FinetuneSettings) -> FinetuneSettings:
    """The run as one that goes on, where it was stopped."""
    return made.model_copy(update={"resume": state_path(made.output).exists()})


def settings(
    base: Path, data: Path, out: Path, run: Run, seed: int, *, plan: Plan = KIT, activated: bool = False
) -> FinetuneSettings:
    """The run of one adapter. All activated ones take one template, so that their prompts begin alike."""
    length = plan[run.objective]
    template = ACTIVATED if activated else length.template
    keep = {} if run.objective == "arguments" else {NO_TOOL: 0.15}  # half of all turns call no tool
    return FinetuneSettings(
        objective=run.objective,
        base=base,
        data=data,
        tools=toolsets.servers_file(run.toolset),
        output=out / run.folder,
        tool=run.tool,
        toolset=run.toolset,
        template=FOLDER / "templates" / f"{template}.jinja",
        activated=activated,
        rank=RANK,
        alpha=2.0 * RANK,
        dtype="float16",
        learning_rate=4e-3,
        epochs=100,
        keep=keep,
        max_steps=length.steps,
        batch_size=length.batch,
        warm_up_steps=5,
        weight_decay=0.0,
        seed=seed,
        threads=1,
    )
