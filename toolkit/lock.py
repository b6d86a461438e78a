"""One process at a time: a lock that the system frees when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; it and its folder are made if they are not there.

    Raises:
        BlockingIOError: another process, or another part of this one, holds it.
        OSError: it cannot be written.

    """
    file = _open(path)
    try:
        yield
    finally:
        file.close()  # which frees it


def _open(path: Path) -> BinaryIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:
            continue  # the folder went away between the two lines: its last holder was just done
        try:
            _lock(file)
            if _is(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # it was removed meanwhile; one of that name is another file


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
