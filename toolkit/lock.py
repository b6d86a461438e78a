"""One process at a time: a lock that the system frees when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NAME: Final = "lock"  # of the file in a held folder


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a folder, made if it is not there, by the file `lock` in it; at the end both go if nothing else is left.

    Raises:
        BlockingIOError: another process, or another part of this one, holds it.
        OSError: it cannot be written.

    """
    try:
        with exclusive(folder / _NAME):
            try:
                yield
            finally:
                if sys.platform != "win32":
                    _remove_empty(folder)
    finally:
        if sys.platform == "win32":  # it does not remove what is open; nor now, if someone else opened it
            _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [_NAME]:
            (folder / _NAME).unlink()
            folder.rmdir()


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


def shared(descriptor: int) -> None:
    """Share an open file with others that do so; whoever wants it alone (`alone`) does not get it. Not on Windows.

    Raises:
        BlockingIOError: somebody has it alone.

    """
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def alone(descriptor: int) -> bool:
    """Whether nobody shares an open file; then nobody will until it is closed. Windows: always."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
