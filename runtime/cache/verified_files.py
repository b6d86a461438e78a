"""Which files were hashed before and have not changed since: kept in the user's cache folder, a file a folder.

A file is taken as it was while its size, its times of modification and of change, and its inode are what they were
when it was hashed. Any write through the system moves one of them. What moves none is not noticed: bits that rot on
the disk, writes around the file system, a clock that was set back. Whoever can write to the cache folder can make a
damaged file pass. docs/limits.md says so, and how to have everything hashed again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from dualtune_edge.runtime.cache.folder import cache_folder
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.files import aside
from dualtune_edge.toolkit.frozen import Frozen

_FOLDER: Final = "verified"
_SETTLED: Final = 2 * 10**9  # ns: file systems tell times that coarsely; what changed later may change again unseen
_Stamp = tuple[int, int, int, int]  # size, ns of modification, ns of change (Windows: of creation), inode


class _Record(Frozen):
    """What was hashed of one folder; `digest` names the hashes that its files had to have."""

    root: str
    digest: str
    files: dict[str, _Stamp]


def hash_changed(root: Path, digest: str, paths: Collection[str], check: Callable[[str], None]) -> None:
    """Call `check` for each path that is not recorded as checked and unchanged; record those that passed.

    Args:
        root: the folder.
        digest: names the hashes that the files must have; a record of other ones counts for nothing.
        paths: below `root`.
        check: hashes one, and raises where it is not as expected.

    """
    found = {path: stamp for path in paths if (stamp := _stamp(root / path))}
    known = _read(root, digest)
    if found == known and len(found) == len(paths):
        return
    for path in paths:
        if path not in found or known.get(path) != found[path]:
            check(path)
    settled = time.time_ns() - _SETTLED
    kept = {
        path: stamp
        for path, stamp in found.items()
        if max(stamp[1:3]) < settled and _stamp(root / path) == stamp  # not written while it was hashed
    }
    if kept != known:
        _write(_Record(root=str(root.resolve()), digest=digest, files=kept))


def forget() -> None:
    """Have every file hashed again when it is needed next."""
    shutil.rmtree(cache_folder() / _FOLDER, ignore_errors=True)


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _path(root: Path) -> Path:
    name = sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / _FOLDER / f"{name}.json"


def _read(root: Path, digest: str) -> dict[str, _Stamp]:
    path = _path(root)
    try:
        if path.stat().st_size > limits.JSON_BYTES:
            return {}
        record = _Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):  # none, or one that is damaged: it is as if nothing had been hashed
        return {}
    return record.files if record.digest == digest and record.root == str(root.resolve()) else {}


def _write(record: _Record) -> None:
    """Replace the folder's record, and drop those of folders that are gone; where nothing can be written, neither."""
    path = _path(Path(record.root))
    with contextlib.suppress(OSError, ValueError):  # ValueError: a path that is no text
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob("*.json"):
            with contextlib.suppress(ValidationError):
                if not Path(_Record.model_validate_json(other.read_bytes()).root).is_dir():
                    other.unlink()
        with aside(path) as stage:
            stage.write_text(record.model_dump_json(), encoding="utf-8")
            stage.replace(path)
