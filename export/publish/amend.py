"""Adds a file to a finished bundle, whole or not at all: a new folder with a new manifest replaces the old one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SEAL
from dualtune_edge.toolkit.bundle.manifest import FileEntry
from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.files import aside, sync, unwritable


def refuse_unwritable(bundle: Bundle) -> None:
    """Refuse a bundle that cannot be replaced, before the work.

    Raises:
        OutputError: nothing can be written beside it.

    """
    root = bundle.root.resolve()
    if bundle.lease:
        raise OutputError(
            str(bundle.lease.store),
            found="a version in a store, which stays as it was installed",
            expected="a bundle's folder",
            fix="Verify the bundle before it is packed.",
        )
    if not os.access(root.parent, os.W_OK):
        raise OutputError(
            str(root.parent),
            found="no permission to write",
            expected="a folder where the bundle can be written again, with the report in it",
            fix="Verify a copy of the bundle.",
        )


def put(bundle: Bundle, path: str, data: bytes) -> None:
    """Put a file into a bundle, or replace it. The other files become hard links where the file system has them.

    Args:
        bundle: an open bundle.
        path: the path of the file in the bundle.
        data: its contents.

    Raises:
        OutputError: the folder cannot be written, or replaced.

    """
    root, manifest = bundle.root.resolve(), bundle.manifest
    entry = FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    others = [file for file in manifest.files if file.path != path]
    amended = manifest.model_copy(update={"files": tuple(sorted((*others, entry), key=lambda file: file.path))})
    try:
        with aside(root) as workspace:
            for file in others:
                _link(root / file.path, workspace / file.path)
            for name, content in ((path, data), (MANIFEST, amended.to_bytes()), (SEAL, amended.seal())):
                (workspace / name).parent.mkdir(parents=True, exist_ok=True)
                (workspace / name).write_bytes(content)
                sync(workspace / name)
            for folder in (workspace, *(path for path in workspace.rglob("*") if path.is_dir())):
                sync(folder)
            workspace.chmod(root.stat().st_mode)
            _replace(root, workspace)
    except OSError as error:
        raise unwritable(root, error) from None


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _replace(root: Path, workspace: Path) -> None:
    """Rename `workspace` to `root`; if that fails, the old folder stays."""
    before = root.with_name(f".{root.name}.before")
    root.rename(before)
    try:
        workspace.rename(root)
        sync(root.parent)
    except OSError:
        if root.exists():  # renamed, and not known to be on the disk
            root.rename(workspace)
        before.rename(root)
        raise
    with contextlib.suppress(OSError):
        shutil.rmtree(before)
