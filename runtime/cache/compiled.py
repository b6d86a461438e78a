"""What was made of a model on this machine, kept in the user's cache folder: by content, and hashed before it is used.

An entry is a folder named after all that it depends on. It appears whole or not at all; a damaged one is made again.
All entries share one budget of bytes; those that were not used for longest leave first. The folder may be deleted at
any time.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from dualtune_edge.runtime.cache.folder import drop, evict, private_folder, used
from dualtune_edge.runtime.cache.verified_files import hash_changed
from dualtune_edge.toolkit.errors import OutputError, RoomError
from dualtune_edge.toolkit.files import published_folder, sha256_file

_SEAL: Final = "sha256"  # one line a file, as `sha256sum -c` reads it
_OWN: Final = 0o700  # mode of an entry's folder
_OWN_FILE: Final = 0o600  # of each file in it, whatever the umask
_Opened = TypeVar("_Opened")


def open_cached(depends_on: str, open_with: Callable[[Path | None], _Opened]) -> _Opened:
    """Open a model with the folder in which its provider keeps what it compiles.

    Args:
        depends_on: names all that the compiled model depends on.
        open_with: opens the model; None where there is no place to write.

    """
    opened: list[_Opened] = []
    try:
        entry = _entry(depends_on)
        if _usable(entry):
            return open_with(entry)
        with published_folder(entry) as workspace:
            workspace.chmod(_OWN)
            opened.append(open_with(workspace))
            _seal(workspace)
    except (OutputError, RoomError):  # no place to write, or another process was quicker and no entry is needed
        if not opened:
            opened.append(open_with(None))
    else:
        evict(entry)
    return opened[0]


def cached_folder(depends_on: str, fill: Callable[[Path], None]) -> Path:
    """The folder that `fill` wrote, now or earlier.

    Args:
        depends_on: names all that its content depends on.
        fill: writes plain files into the folder that it is given.

    Raises:
        OutputError: it cannot be written, or others can write to the cache folder.
        Exception: what `fill` raises; nothing is left then.

    """
    entry = _entry(depends_on)
    if _usable(entry):
        return entry
    try:
        with published_folder(entry) as workspace:
            workspace.chmod(_OWN)
            fill(workspace)
            _seal(workspace)
    except (OutputError, RoomError):
        if _usable(entry):  # another process was quicker
            return entry
        raise
    evict(entry)
    return entry


def _entry(depends_on: str) -> Path:
    return private_folder() / sha256(depends_on.encode()).hexdigest()


def _usable(entry: Path) -> bool:
    """Whether the entry is there and whole; a damaged one is dropped.

    Raises:
        OutputError: others can write to it.

    """
    if not entry.is_dir():
        return False
    private_folder(entry.name)
    if not _whole(entry):
        drop(entry)
        return False
    used(entry)
    return True


def _seal(folder: Path) -> None:
    seal = folder / _SEAL
    files = sorted(path for path in folder.iterdir() if path != seal)
    lines = (f"{sha256_file(path)}  {path.name}\n" for path in files)
    seal.write_text("".join(lines), encoding="utf-8")
    for path in (*files, seal):
        path.chmod(_OWN_FILE)  # OpenVINO writes them read-only, and what is read-only cannot be synced


def _whole(folder: Path) -> bool:
    """Whether the folder holds just the files that were sealed, each with its hash."""

    def check(name: str) -> None:
        if sha256_file(folder / name) != hashes.get(name):
            raise ValueError(name)

    try:
        seal = (folder / _SEAL).read_bytes()
        lines = (line.split("  ", 1) for line in seal.decode("utf-8").splitlines())
        hashes = {name: digest for digest, name in lines}
        if {path.name for path in folder.iterdir()} != {*hashes, _SEAL}:
            return False
        hash_changed(folder, sha256(seal).hexdigest(), sorted(hashes), check)
    except (OSError, ValueError):
        return False
    return True
