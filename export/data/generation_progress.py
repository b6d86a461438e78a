"""How far the data is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dualtune_edge.export.data.generation import OnProgress
from dualtune_edge.export.data.teacher import Usage
from dualtune_edge.toolkit import console

_INTERVAL: Final = 10.0  # seconds between two lines


@contextlib.contextmanager
def shown() -> Iterator[OnProgress]:
    """What shows progress on stderr, and says at an early end that the work is kept."""
    terminal = Console(stderr=True)
    try:
        if not terminal.is_terminal:
            yield _Lines()
            return
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[tokens]:,} tokens"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=terminal) as bar:
            task = bar.add_task("", total=None, tokens=0)

            def show(kept: int, wanted: int, usage: Usage) -> None:
                bar.update(task, completed=kept, total=wanted, tokens=usage.tokens)

            yield show
    except (KeyboardInterrupt, SystemExit):
        console.echo("stopped: what was made is kept, and the same command goes on", err=True)
        raise


class _Lines:
    """Writes a line every ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _INTERVAL

    def __call__(self, kept: int, wanted: int, usage: Usage) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _INTERVAL
            console.echo(f"{kept} of {wanted} conversations, {usage.tokens:,} tokens", err=True)
