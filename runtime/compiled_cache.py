"""What a provider compiled, kept in the user's cache folder: by content, and hashed again before it is used.

An entry is a folder named after all that the compiled model depends on. It appears whole or not at all; a damaged one
is compiled anew. Nothing is ever evicted: the folder may be deleted at any time.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.files import sha256_file, staged_folder

CACHE_VARIABLE: Final = "DUALTUNE_EDGE_CACHE"
_SEAL: Final = "sha256"  # one line a file, as `sha256sum -c` reads it
_Opened = TypeVar("_Opened")


def cache_folder() -> Path:
    """$DUALTUNE_EDGE_CACHE, or where this system keeps a user's caches."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "dualtune-edge" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dualtune-edge"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dualtune-edge"


def open_cached(depends_on: str, open_with: Callable[[Path | None], _Opened]) -> _Opened:
    """Open a model with the folder in which its provider keeps what it compiles.

    Args:
        depends_on: names all that the compiled model depends on.
        open_with: opens the model; None where there is no place to write.

    """
    entry = cache_folder() / sha256(depends_on.encode()).hexdigest()
    if entry.is_dir():
        if _whole(entry):
            return open_with(entry)
        shutil.rmtree(entry, ignore_errors=True)
    opened: list[_Opened] = []
    try:
        with staged_folder(entry) as stage:
            opened.append(open_with(stage))
            _seal(stage)
    except OutputError:  # no place to write, or another process was quicker: then this model needs no entry any more
        if not opened:
            opened.append(open_with(None))
    return opened[0]


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.iterdir())
    for path in files:
        path.chmod(0o644)  # OpenVINO writes them read-only, and what is read-only cannot be synced
    lines = (f"{sha256_file(path)}  {path.name}\n" for path in files)
    (folder / _SEAL).write_text("".join(lines), encoding="utf-8")


def _whole(folder: Path) -> bool:
    """Whether the folder holds just the files that were sealed, each with its hash."""
    try:
        sealed = (folder / _SEAL).read_text(encoding="utf-8")
        found = (f"{sha256_file(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != _SEAL)
        return sealed == "".join(found)
    except OSError:
        return False
