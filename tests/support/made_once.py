"""A folder that all workers of a test run share: the first that asks makes it, the others wait for it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(name: str, make: Callable[[Path], object], factory: pytest.TempPathFactory) -> Path:
    """The folder `name` of this run, as `make` has filled it. No test may change it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    folder, made = root / name, root / f"{name}.made"
    with (root / f"{name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits; closing the file frees it
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed in the middle
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
