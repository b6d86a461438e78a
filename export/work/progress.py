"""Stages as they go by: a bar for whoever watches, seconds and peak memory for the report."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dualtune_edge.export.work.memory import give_back
from dualtune_edge.toolkit.frozen import Frozen

_INTERVAL: Final = 0.05  # seconds between two looks at the memory


class StageReport(Frozen):
    """One stage's cost. `peak_mb` is the process's largest resident memory during it, in MB (1e6 bytes)."""

    name: str
    seconds: float
    peak_mb: float


class Stage:
    """One running stage."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self) -> None:
        """One of its steps is done."""
        self._bar.advance(self._task)


class Stages:
    """Times stages, samples memory, and shows bars on the console if someone can see them.

    A context manager: the bars and the sampling thread live as long as it is open.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)  # this one, also while a stage leads sys.stderr elsewhere
        self._memory = _PeakMemory()
        self._bar = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._reports: list[StageReport] = []
        self._of = ""

    def __enter__(self) -> Self:
        self._memory.start()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._memory.stop()

    @property
    def reports(self) -> tuple[StageReport, ...]:
        """The stages that ended well, in order."""
        return tuple(self._reports)

    @contextlib.contextmanager
    def of(self, what: str) -> Iterator[None]:
        """While it is open, stages are told as those of `what`; empty: they need not be told apart."""
        before, self._of = self._of, f"{what}: " if what else ""
        try:
            yield
        finally:
            self._of = before

    @contextlib.contextmanager
    def stage(self, name: str, steps: int = 1) -> Iterator[Stage]:
        """Run one stage of so many steps. What libraries print meanwhile, bars of their own too, goes nowhere."""
        name = f"{self._of}{name}"
        task = self._bar.add_task(name, total=steps)
        give_back()  # else each stage is told with what the one before has left
        self._memory.reset()
        start = time.perf_counter()
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield Stage(self._bar, task)
        seconds = time.perf_counter() - start
        self._bar.update(task, completed=steps)
        self._reports.append(StageReport(name=name, seconds=round(seconds, 3), peak_mb=self._memory.peak_mb()))


class _PeakMemory:
    """The process's largest resident set since the last reset, by looking every few ms."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def reset(self) -> None:
        self._peak = 0
        self._look()

    def peak_mb(self) -> float:
        self._look()
        return round(self._peak / 1e6, 1)

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)
