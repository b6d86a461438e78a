"""Plain and activated adapters of the kit: trained on equal data for equal steps, and measured on the held-out file."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import RECORD, Record, Score
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge_kit.training.adapters import runs
from dualtune_edge_kit.training.adapters.runs import Run
from dualtune_edge_kit.training.data import trajectories

_CONVERSATIONS: Final = 5_000  # the first ones of those that the kit's adapters learn from
_BATCH: Final = 16
_STEPS: Final = {"selection": 60, "arguments": 30}
_EVERY: Final = 2  # of the held-out conversations
RUNS: Final = (
    Run("filesystem", "selection", None),
    Run("git", "selection", None),
    Run("filesystem", "arguments", "search_files"),
    Run("git", "arguments", "git_log"),
)


Kind: TypeAlias = Literal["plain", "activated"]
KINDS: Final[tuple[Kind, ...]] = ("plain", "activated")


def make(kit: Path, work: Path, say: Callable[[str], None]) -> None:
    """Train every adapter of `RUNS` in every kind below ``work``, those that are there excepted."""
    work.mkdir(parents=True, exist_ok=True)
    data, held = work / "train.jsonl", work / "heldout.jsonl"
    if not data.exists():
        trajectories.write(data, list(itertools.islice(runs.conversations(seed=0), _CONVERSATIONS)))
    lines = (kit / "heldout.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    held.write_text("".join(lines[::_EVERY]), encoding="utf-8", newline="\n")
    files = TrajectoryFiles()
    with Base.open(kit / "base") as base:
        for run, kind, folder in _folders(work):
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                made = _settings(kit / "base", work, run, kind)
                report = finetune(runs.resumed(made), base=base, files=files)
                say(f"{run.folder}, {kind}: {_cell(report.held_out[-1])}, {report.seconds:.0f} s")


def table(work: Path) -> str:
    """Right of the held-out turns, an adapter a row and a kind a column."""
    cells: dict[Run, list[str]] = {run: [] for run in RUNS}
    for run, _, folder in _folders(work):
        record = Record.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
        cells[run].append(_cell(record.scores[-1]))
    rows = "".join(f"| {run.folder} | {' | '.join(found)} |\n" for run, found in cells.items())
    return f"| adapter | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}\n{rows}"


def _folders(work: Path) -> Iterator[tuple[Run, Kind, Path]]:
    return ((run, kind, work / kind / run.folder) for run in RUNS for kind in KINDS)


def _settings(base: Path, work: Path, run: Run, kind: Kind) -> FinetuneSettings:
    """Those of the committed adapter with fewer steps, measured once, at the end: nothing is chosen by the score."""
    steps = _STEPS[run.objective]
    made = runs.settings(base, work / "train.jsonl", work / kind, run, seed=0, activated=kind == "activated")
    changes = {"max_steps": steps, "batch_size": _BATCH, "held_out": work / "heldout.jsonl", "measure_every": steps}
    return made.model_copy(update=changes)


def _cell(score: Score) -> str:
    return f"{score.right} of {score.samples}"
