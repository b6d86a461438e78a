"""A disk whose power is cut at the k-th call: what was not synced is lost, all of it or the contents of files alone."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

Loss = Literal["contents", "names"]


class PowerCutError(BaseException):
    """The power is gone. Nothing that the process does now reaches the disk."""


@dataclass
class _Change:
    """A change of names that is not on the disk; `path` follows the renames of folders above it."""

    path: str
    before: str | None = None  # another name of the file that was there
    source: str | None = None  # of a rename
    removed: Literal["file", "folder"] | None = None  # by an unlink or a rmdir

    @property
    def folder(self) -> str:
        """Whose sync brings it to the disk."""
        return os.path.dirname(self.path)  # noqa: PTH120

    def undo(self) -> None:
        if self.source:
            with contextlib.suppress(OSError):
                os.replace(self.path, self.source)  # noqa: PTH105
        elif self.removed == "folder":
            os.makedirs(self.path, exist_ok=True)  # noqa: PTH103
        elif self.removed is None:
            _gone(self.path)
        if self.before:
            with contextlib.suppress(OSError):
                os.link(self.before, self.path)

    def follow(self, source: str, target: str) -> None:
        if self.path.startswith(f"{source}/"):
            self.path = target + self.path[len(source) :]


class Disk:
    """Watches the calls that change files below a folder."""

    def __init__(self, root: Path, scratch: Path, cut: int | None) -> None:
        self._root, self._scratch, self._cut = os.path.realpath(root), scratch, cut
        self.calls = 0
        self._changes: list[_Change] = []
        self._unsynced: set[tuple[int, int]] = set()  # files with contents that are not on the disk
        self._paths: dict[int, str] = {}  # of open descriptors
        names = ("open", "mkdir", "link", "unlink", "rmdir", "replace")
        self._real = {name: getattr(os, name) for name in names}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "mkdir", "link", "unlink", "rmdir", "fsync", "rename", "replace"):
                patch.setattr(os, name, getattr(self, f"_{name}"))
            patch.setattr(os, "remove", self._unlink)
            patch.setattr(io, "open", self._open_file)
            yield

    def lose(self, loss: Loss) -> None:
        """What is on the disk once the power is back."""
        while loss == "names" and self._changes:
            change = self._changes.pop()
            change.undo()
            if change.source:
                for other in self._changes:
                    other.follow(change.path, change.source)
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) in self._unsynced:
                    os.truncate(path, status.st_size // 2)

    def _call(self, *paths: object) -> bool:
        """Count a call; whether it is of this disk."""
        if not any(os.path.realpath(os.fspath(path)).startswith(self._root) for path in paths):  # type: ignore[call-overload]
            return False
        self.calls += 1
        if self._cut is not None and self.calls >= self._cut:
            raise PowerCutError
        return True

    def _changed(self, path: object, **how: Any) -> None:
        self._changes.append(_Change(_absolute(path), **how))

    def _kept(self, path: str) -> str | None:
        """Another name of a file that is about to lose its own."""
        if not os.path.isfile(path):  # noqa: PTH113
            return None
        copy = str(self._scratch / f"{self.calls}")
        self._real["link"](path, copy)
        return copy

    def _open(self, path: Any, flags: int, mode: int = 0o777, **how: Any) -> int:
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        ours = bool(flags & (os.O_WRONLY | os.O_RDWR)) and self._call(path)
        descriptor: int = self._real["open"](path, flags, mode, **how)
        self._paths[descriptor] = os.path.realpath(path)
        if ours and (new or flags & os.O_TRUNC):
            self._written(path, descriptor, new=new)
        return descriptor

    def _open_file(self, path: Any, mode: str = "r", *of: Any, **how: Any) -> Any:
        if isinstance(path, int):
            return builtins.open(path, mode, *of, **how)  # noqa: PTH123
        writes = bool(set(mode) & set("wax+"))
        new = writes and not os.path.lexists(path)
        ours = writes and self._call(path)
        file = builtins.open(path, mode, *of, **how)  # noqa: PTH123, SIM115
        self._paths[file.fileno()] = os.path.realpath(path)
        if ours:
            self._written(path, file.fileno(), new=new)
        return file

    def _written(self, path: object, descriptor: int, *, new: bool) -> None:
        status = os.fstat(descriptor)
        self._unsynced.add((status.st_dev, status.st_ino))
        if new:
            self._changed(path)

    def _fsync(self, descriptor: int) -> None:
        path = self._paths.get(descriptor, "")
        self._call(path)
        status = os.fstat(descriptor)
        self._unsynced.discard((status.st_dev, status.st_ino))
        self._changes = [change for change in self._changes if change.folder != path]

    def _mkdir(self, path: Any, mode: int = 0o777, **how: Any) -> None:
        ours = self._call(path)
        self._real["mkdir"](path, mode, **how)
        if ours:
            self._changed(path)

    def _link(self, source: Any, target: Any, **how: Any) -> None:
        ours = self._call(target)
        self._real["link"](source, target, **how)
        if ours:
            self._changed(target)

    def _rename(self, source: Any, target: Any, **how: Any) -> None:
        ours = self._call(source, target)
        before = self._kept(str(target)) if ours else None
        whole = _absolute(source), _absolute(target)
        self._real["replace"](source, target, **how)
        if ours:
            for change in self._changes:
                change.follow(*whole)
            self._changed(target, before=before, source=whole[0])

    _replace = _rename

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        whole = str(path) if dir_fd is None else f"{self._paths.get(dir_fd, '')}/{path}"
        ours = self._call(whole)
        before = self._kept(whole) if ours else None
        self._real["unlink"](path, dir_fd=dir_fd)
        if before:
            self._changed(whole, before=before, removed="file")

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        whole = str(path) if dir_fd is None else f"{self._paths.get(dir_fd, '')}/{path}"
        ours = self._call(whole)
        self._real["rmdir"](path, dir_fd=dir_fd)
        if ours:
            self._changed(whole, removed="folder")


def _absolute(path: object) -> str:
    """The path without links above it; the last name may be one."""
    folder, name = os.path.split(os.fspath(path))  # type: ignore[call-overload]
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118


def _gone(path: str) -> None:
    if os.path.isdir(path):  # noqa: PTH112
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)  # noqa: PTH108
