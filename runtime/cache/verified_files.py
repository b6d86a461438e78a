"""Which files were hashed before and have not changed since: kept in the user's cache folder, a file a folder.

A file is taken as it was while its size, its times of modification and of change, its inode and its device are what
they were when it was hashed. Any write through the system moves one of them, on the file systems that `filesystems`
names; on others nothing is recorded, and everything is hashed. What moves none is not noticed: bits that rot on the
disk, writes around the file system, a clock that was set back. docs/limits.md says so, and how to have everything
hashed again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from dualtune_edge.runtime.cache.filesystems import name_of
from dualtune_edge.runtime.cache.folder import cache_folder, private_folder
from dualtune_edge.toolkit.errors import EdgeError
from dualtune_edge.toolkit.files import aside
from dualtune_edge.toolkit.frozen import Frozen

_FOLDER: Final = "verified"
_SETTLED: Final = 2 * 10**9  # ns: file systems count times that coarsely; what changed later may change again unseen
_RECORD_BYTES: Final = 16 << 20  # of a record that is read
_Stamp = tuple[int, int, int, int, int]  # size, ns of modification, ns of change (Windows: of creation), inode, device

_FORGOTTEN: Final = threading.Event()  # set: this process reads no record


class _Record(Frozen):
    """What was hashed of one folder; `digest` names the hashes that its files had to have."""

    root: str
    filesystem: str
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
    records = _Records.of(root)
    if records is None:
        for path in paths:
            check(path)
        return
    stamps = {path: stamp for path in paths if (stamp := records.stamp(path))}
    known = records.read(digest)
    if stamps == known and len(stamps) == len(paths):
        return
    for path in paths:
        if path not in stamps or known.get(path) != stamps[path]:
            check(path)
    settled = time.time_ns() - _SETTLED
    kept = {
        path: stamp
        for path, stamp in stamps.items()
        if max(stamp[1:3]) < settled and records.stamp(path) == stamp  # not written while it was hashed
    }
    if kept != known:
        records.write(digest, kept)


def forget() -> None:
    """Have every file hashed again when it is needed next, and by this process whatever is recorded."""
    _FORGOTTEN.set()
    shutil.rmtree(cache_folder() / _FOLDER, ignore_errors=True)  # what cannot be removed is not read either


class _Records:
    """The record of one folder: `path` is the file that holds it."""

    def __init__(self, path: Path, root: Path, filesystem: str, device: int) -> None:
        self._path, self._root, self._filesystem, self._device = path, root, filesystem, device

    @classmethod
    def of(cls, root: Path) -> _Records | None:
        """None: times say nothing where the folder lies, or there is no cache folder."""
        try:
            whole, device = root.resolve(strict=True), root.stat().st_dev
            name = sha256(str(whole).encode("utf-8", "surrogateescape")).hexdigest()
            filesystem, folder = name_of(root), cache_folder() / _FOLDER
        except (OSError, RuntimeError, ValueError, EdgeError):
            return None
        return None if filesystem is None else cls(folder / f"{name}.json", whole, filesystem, device)

    def stamp(self, path: str) -> _Stamp | None:
        """By what a file is known again; None: it is not there, or lies on another file system than its folder."""
        try:
            status = (self._root / path).lstat()
        except OSError:
            return None
        if status.st_dev != self._device:
            return None
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev

    def read(self, digest: str) -> dict[str, _Stamp]:
        """The stamps of those files that had the hashes which `digest` names."""
        if _FORGOTTEN.is_set() or not self._path.exists():
            return {}
        try:
            private_folder(_FOLDER)
        except EdgeError:  # others could have written the record
            return {}
        record = _read(self._path)
        if record is None:
            return {}
        same = (record.root, record.filesystem, record.digest) == (str(self._root), self._filesystem, digest)
        return record.files if same else {}

    def write(self, digest: str, files: dict[str, _Stamp]) -> None:
        """Replace the record, and drop those of folders that are gone; where nothing can be written, neither."""
        record = _Record(root=str(self._root), filesystem=self._filesystem, digest=digest, files=files)
        with contextlib.suppress(OSError, ValueError, EdgeError):  # ValueError: a path that is no text
            private_folder(_FOLDER)
            for other in self._path.parent.glob("*.json"):
                if (old := _read(other)) and not Path(old.root).is_dir():
                    other.unlink()
            with aside(self._path) as workspace:
                descriptor = os.open(workspace, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - what is open already
                    file.write(record.model_dump_json())
                workspace.replace(self._path)


def _read(path: Path) -> _Record | None:
    """None: there is none, or one that is damaged. Then it is as if nothing had been hashed."""
    try:
        if path.stat().st_size > _RECORD_BYTES:
            return None
        return _Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
