"""A folder that all workers of a test run share: the first that asks makes it, the others wait for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dualtune_edge.toolkit.lock import exclusive


def made_once(name: str, make: Callable[[Path], object], factory: pytest.TempPathFactory) -> Path:
    """The folder `name` of this run, as `make` has filled it. No test may change it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    folder, made = root / name, root / f"{name}.made"
    with _held(root / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed in the middle
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Wait for a lock, and hold it."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(lock))
                break
            except BlockingIOError:
                time.sleep(0.05)
        yield
