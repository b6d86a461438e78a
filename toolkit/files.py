"""Files: hashes, names that every file system takes, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dualtune_edge.toolkit.errors import OutputError, RoomError
from dualtune_edge.toolkit.lock import held_folder

_WORKSPACE: Final = "stage"  # in the folder that is held for it
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # EFBIG: beyond `ulimit -f`
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})  # of folders, on some network file systems
_CHUNK: Final = 1 << 20  # bytes read at a time
_PLAIN: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,98}[a-z0-9_])?")  # no upper case: Windows and macOS fold it
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")  # device names of Windows


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """A file name for `name` that is the same on every file system, and different for different names."""
    if _PLAIN.fullmatch(name) and not _RESERVED.fullmatch(name):
        return name
    readable = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:60]
    return f"{readable or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` when the block ends well, and vanishes when not.

    Raises:
        OutputError: `target` exists, or cannot be written.
        RoomError: the disk is full.

    """
    refuse_existing(target)
    with contextlib.ExitStack() as stack:
        try:
            workspace = stack.enter_context(aside(target))
            workspace.mkdir()
            yield workspace
        except OSError as error:
            raise unwritable(target, error) from error
        publish(workspace, target)


@contextlib.contextmanager
def aside(target: Path) -> Iterator[Path]:
    """A path on the disk of `target` where nothing is; what is there at the end is removed.

    It lies in `.NAME.0.partial`, or the next number where another process holds that. What a killed one left there is
    cleared by the next one.

    Raises:
        OSError: it cannot be written.

    """
    with contextlib.ExitStack() as stack:
        for number in itertools.count():
            folder = target.parent / f".{target.name}.{number}.partial"
            if folder.is_symlink():  # nothing of ours: what is removed below would be elsewhere
                continue
            with contextlib.suppress(BlockingIOError):
                stack.enter_context(held_folder(folder))
                break
        workspace = folder / _WORKSPACE
        _remove(workspace)
        stack.callback(_remove, workspace)
        yield workspace


def remove_abandoned(folder: Path) -> None:
    """Remove a `.NAME.N.partial` (`aside`) that a killed process left; one at work keeps it."""
    with contextlib.suppress(OSError), held_folder(folder):
        _remove(folder / _WORKSPACE)


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there, as far as the system lets it go."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def publish(workspace: Path, target: Path) -> None:
    """Give a finished folder its name, all of it or nothing: the name is on the disk after all that is in the folder.

    Raises:
        OutputError: `target` exists, or cannot be written.
        RoomError: the disk is full.

    """
    refuse_existing(target)
    try:
        for path in (*workspace.rglob("*"), workspace):
            sync(path)
        workspace.rename(target)  # fails where another process was quicker: a folder with files is never replaced
        _sync_name(workspace, target)
    except OSError as error:
        raise unwritable(target, error) from None


def _sync_name(workspace: Path, target: Path) -> None:
    """Wait until the name is on the disk; where it cannot be, take it back."""
    try:
        sync(target.parent)
    except OSError as error:
        try:
            target.rename(workspace)
        except OSError:  # the disk refuses that too
            raise unwritable(target, error, "; it stands there, whole, but a power cut may lose it") from None
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file, or make it: at every moment the old one or the new one is there, whole.

    Raises:
        OSError: it cannot be written, and the old one stays; or a power cut may bring the old one back.

    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # a killed process left it, or it is a link that leads elsewhere
        with partial.open("xb") as file:
            file.write(data)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk.

    Raises:
        OSError: they cannot be written.

    """
    folder = path.is_dir()
    if folder and sys.platform == "win32":  # it opens no folder, and writes their names in order
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def refuse_existing(target: Path) -> None:
    """Raise `OutputError` if something is there already (a broken link too), or nothing can be."""
    try:
        there = target.exists() or target.is_symlink()
    except OSError as error:  # a name that is too long, a folder that may not be searched
        raise unwritable(target, error) from None
    if there:
        raise OutputError(
            str(target),
            found="something already there",
            expected="a path where nothing is yet",
            fix="Remove it, or name another output.",
        )


def unwritable(target: Path, error: OSError, note: str = "") -> OutputError | RoomError:
    """The error of a place where nothing can be written: for want of room, or for another reason."""
    found = f"{error}{note}"
    if error.errno in NO_ROOM:
        return RoomError(
            f"the disk of {target}", found=found, expected="room for the rest", fix="Make room, then try again."
        )
    return OutputError(str(target), found=found, expected="a place to write", fix="Check its permissions and its disk.")
