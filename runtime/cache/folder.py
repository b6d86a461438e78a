"""The user's cache folder: where it is, and what may lie there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import OutputError, ProfileError
from dualtune_edge.toolkit.files import aside, remove_abandoned, unwritable

CACHE_VARIABLE: Final = "DUALTUNE_EDGE_CACHE"
BUDGET_VARIABLE: Final = "DUALTUNE_EDGE_CACHE_MB"
_ENTRY_NAME: Final = 64  # characters: a SHA-256
_OWN: Final = 0o700  # mode of a folder


def cache_folder() -> Path:
    """$DUALTUNE_EDGE_CACHE, or where this system keeps a user's caches.

    Raises:
        ProfileError: the user has no home folder.

    """
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local") / "dualtune-edge" / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "dualtune-edge"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "dualtune-edge"


def private_folder(name: str = "") -> Path:
    """The cache folder, or the folder `name` in it, made if it is not there: nobody else can write to it.

    Raises:
        OutputError: it cannot be made, is a link in the cache folder, belongs to somebody else, or others can write to
            it: they could put a damaged file among those that were verified.
        ProfileError: as for `cache_folder`.

    """
    folder = cache_folder()
    try:
        _make(folder)
        _refuse_foreign(folder, folder.stat())
        if name:
            folder /= name
            folder.mkdir(mode=_OWN, exist_ok=True)
            _refuse_foreign(folder, folder.lstat())
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder


def _make(folder: Path) -> None:
    """Make a folder and those above it, for this user alone whatever the umask is."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(mode=_OWN, exist_ok=True)


def _refuse_foreign(folder: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        found = "a link" if stat.S_ISLNK(status.st_mode) else "a file"
    elif sys.platform == "win32":  # a profile's folders are closed to others there, and modes say nothing
        return
    elif status.st_uid not in {os.geteuid(), 0}:
        found = f"a folder of user {status.st_uid}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        found = f"a folder that others can write to (mode {stat.S_IMODE(status.st_mode):o})"
    else:
        return
    raise OutputError(
        str(folder),
        found=found,
        expected="a folder of this user, to which nobody else can write",
        fix=f"Remove it, or set {CACHE_VARIABLE} to another folder.",
    )


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no $HOME, and a user of whom the system knows none: containers have such
        raise ProfileError(
            "the cache folder",
            found="no home folder of this user",
            expected=f"one, or {CACHE_VARIABLE}",
            fix=f"Set {CACHE_VARIABLE} to a folder that only this user can write to.",
        ) from None


def cache_budget() -> int:
    """Bytes that all entries together may take: $DUALTUNE_EDGE_CACHE_MB × 10⁶, or `limits.CACHE_BYTES`.

    Raises:
        ProfileError: the variable holds no number.

    """
    text = os.environ.get(BUDGET_VARIABLE)
    if not text:
        return limits.CACHE_BYTES
    if not (text.isascii() and text.isdecimal()):
        raise ProfileError(
            BUDGET_VARIABLE, found=repr(text), expected="a whole number of MB, 0 or more", fix="Set it so, or unset it."
        )
    return int(text) * 10**6


def no_room(needed: int) -> str:
    """Why an entry of `needed` bytes is not to be made; empty if it may be."""
    if needed > (budget := cache_budget()):
        return f"they would take {needed / 1e6:,.0f} MB, and the cache may take {budget / 1e6:,.0f}"
    there = cache_folder()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return str(error)
    return f"they would take {needed / 1e6:,.0f} of the {free / 1e6:,.0f} MB that are free" if needed > free else ""


def used(entry: Path) -> None:
    """Note that an entry is used now: those that were not for longest leave first."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def evict(kept: Path) -> None:
    """Drop the entries that were not used for longest, all but `kept`, until the rest is within the budget."""
    entries: list[tuple[float, int, Path]] = []
    for path in cache_folder().iterdir():
        with contextlib.suppress(OSError):  # another process may be dropping it
            if path.name.endswith(".partial"):
                remove_abandoned(path)
            if len(path.name) == _ENTRY_NAME and path.is_dir():
                size = sum(file.stat().st_size for file in path.iterdir())
                entries.append((path.stat().st_mtime, size, path))
    left, budget = sum(size for _, size, _ in entries), cache_budget()
    for _, size, path in sorted(entries):
        if left <= budget:
            return
        if path != kept:
            drop(path)
            left -= size


def drop(entry: Path) -> None:
    """Remove an entry. Under its name it is gone at once, so that nobody finds half of one."""
    with contextlib.suppress(OSError), aside(entry) as gone:  # Windows: where another process has it open it stays
        entry.rename(gone)
