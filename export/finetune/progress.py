"""A run's events for whoever watches: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dualtune_edge.export.finetune.report import Event, Interruption, Measurement, OnEvent, Score, Start, Step
from dualtune_edge.toolkit import console

_INTERVAL: Final = 10.0  # seconds between two lines


@contextlib.contextmanager
def shown(again: str = "--resume") -> Iterator[OnEvent]:
    """What shows events on stderr; `again` is what goes on with a run that was stopped."""
    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield Lines(again=again)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn())
    with Progress(*columns, console=terminal) as bar:
        yield Bar(bar, again)


class Bar:
    """Shows the steps as a bar."""

    def __init__(self, bar: Progress, again: str) -> None:
        self._bar, self._again = bar, again
        self._task = bar.add_task("", total=None, loss=0.0)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Start():
                _begin(event)
                self._bar.update(self._task, completed=event.done, total=event.steps)
            case Step():
                self._bar.update(self._task, completed=event.step, total=event.steps, loss=event.loss)
            case Measurement():
                _measured(event.score)
            case Interruption():
                _end(event, self._again)


class Lines:
    """Writes a line for the first step, the last one, and one every ten seconds between them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, again: str = "--resume") -> None:
        self._clock, self._again = clock, again
        self._done, self._started, self._next = 0, 0.0, 0.0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        now = self._clock()
        match event:
            case Start():
                _begin(event)
                self._done, self._started, self._next = event.done, now, now
            case Step() if now >= self._next or event.step == event.steps:
                self._next = now + _INTERVAL
                seconds = (now - self._started) / (event.step - self._done) * (event.steps - event.step)
                left = f"{timedelta(seconds=round(seconds))} left"
                console.echo(f"step {event.step} of {event.steps}, loss {event.loss:.3f}, {left}", err=True)
            case Measurement():
                _measured(event.score)
            case Interruption():
                _end(event, self._again)


def _begin(start: Start) -> None:
    for warning in start.warnings:
        console.warn(warning)
    done = f", {start.done} of them done" if start.done else ""
    where = f"{start.threads} threads" if start.device == "cpu" else f"on {start.device}"
    where = f"{start.processes} processes, each {where}" if start.processes > 1 else where
    held_out = f", {start.held_out} held out" if start.held_out else ""
    console.echo(f"{start.samples} samples{held_out}, {start.steps} steps{done}, {where}", err=True)


def _measured(score: Score) -> None:
    right = f"{score.right} of {score.samples} held out right ({score.share:.1%})"
    console.echo(f"step {score.step}: {right}, loss {score.loss:.3f}", err=True)


def _end(stop: Interruption, again: str) -> None:
    kept = f"{again} goes on from there" if stop.step else "there is nothing to resume"
    console.echo(f"stopped after step {stop.step} of {stop.steps}: {kept}", err=True)
