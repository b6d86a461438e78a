"""The progress of an export: a bar for each phase on a terminal, seconds and peak memory for the report."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from dualtune_edge.export.work.memory import PeakMemory, give_back
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.toolkit.frozen import Frozen


class PhaseReport(Frozen):
    """What one phase cost. `peak_mb`: the largest resident memory of the process during it, in MB (1e6 bytes)."""

    name: str
    seconds: float
    peak_mb: float


class Phase:
    """One running phase."""

    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self) -> None:
        """Count one finished step."""
        self._bars.advance(self._task)


class Progress:
    """Times the phases, samples memory, and draws a bar for each phase if the console is a terminal.

    A context manager: the bars and the sampling thread live as long as it is open.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)  # keeps the stream while a phase redirects sys.stderr
        self._memory = PeakMemory()
        self._bars = Bars(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._reports: list[PhaseReport] = []
        self._label = ""

    def __enter__(self) -> Self:
        self._memory.start()
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._memory.stop()

    @property
    def reports(self) -> tuple[PhaseReport, ...]:
        """The phases that ended without an error, in order."""
        return tuple(self._reports)

    @contextlib.contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Put `label` before the names of the phases that begin meanwhile; an empty label changes nothing."""
        before, self._label = self._label, f"{label}: " if label else ""
        try:
            yield
        finally:
            self._label = before

    @contextlib.contextmanager
    def phase(self, name: PhaseName, steps: int = 1) -> Iterator[Phase]:
        """Run one phase of `steps` steps. Output of libraries, and their own progress bars, are discarded meanwhile."""
        labelled = f"{self._label}{name}"
        task = self._bars.add_task(labelled, total=steps)
        give_back()  # memory that the phase before left is not this one's
        self._memory.reset()
        start = time.perf_counter()
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield Phase(self._bars, task)
        seconds = time.perf_counter() - start
        self._bars.update(task, completed=steps)
        self._reports.append(
            PhaseReport(name=labelled, seconds=round(seconds, 3), peak_mb=round(self._memory.peak() / 1e6, 1))
        )
