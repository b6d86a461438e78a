"""Files: hashes, names that every file system takes, and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dualtune_edge.toolkit.errors import OutputError

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
def staged_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that becomes `target` when the block ends well, and vanishes when not.

    Raises:
        OutputError: `target` exists, or cannot be written.

    """
    refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise unwritable(target, error) from None
    try:
        yield stage
        stage.chmod(0o755)  # mkdtemp's own mode keeps other users out
        publish(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def publish(stage: Path, target: Path) -> None:
    """Give a finished folder its name, all of it or nothing.

    Raises:
        OutputError: `target` exists, or cannot be written.

    """
    for path in stage.rglob("*"):
        if path.is_file():
            sync(path)
    refuse_existing(target)
    try:
        stage.rename(target)  # fails where another process was quicker: a folder with files is never replaced
    except OSError as error:
        raise unwritable(target, error) from None


def sync(path: Path) -> None:
    """Have a file's bytes on the disk, not only on their way."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


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


def unwritable(target: Path, error: OSError) -> OutputError:
    """The error of a place where nothing can be written."""
    return OutputError(
        str(target), found=str(error), expected="a place to write", fix="Check its permissions and free space."
    )
