"""Lists what a store holds, and removes what is neither current nor previous nor in use."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.bundle.contents import read_manifest
from dualtune_edge.runtime.bundle.current import read_state
from dualtune_edge.runtime.store.install import changing
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.bundle.store import BLOBS_DIR, VERSIONS_DIR, Change, StoreState
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.files import aside, remove_abandoned
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.lock import alone

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Version(Frozen):
    """A version in a store."""

    image: str
    release: Release | None  # None: it is damaged
    bytes: int
    current: bool
    previous: bool


class Contents(Frozen):
    """What `list --json` prints, the current version first."""

    store: str
    versions: tuple[Version, ...]
    bytes: int  # of all, what versions share counted once
    log: tuple[Change, ...]


class Collected(Frozen):
    """What `gc --json` prints."""

    versions: int
    blobs: int
    bytes: int  # of the blobs


def contents(store: Path) -> Contents:
    """What a store holds.

    Raises:
        StoreError: it is no store.

    """
    state = read_state(store)
    versions = [_version(folder, state) for folder in _versions(store)]
    sizes = {(status.st_dev, status.st_ino): status.st_size for status in _files(store)}
    return Contents(
        store=str(store),
        versions=tuple(
            sorted(versions, key=lambda version: (not version.current, not version.previous, version.image))
        ),
        bytes=sum(sizes.values()),
        log=state.log,
    )


def collect(store: Path) -> Collected:
    """Remove versions that are neither current nor previous nor in use, blobs of no version, and what power cuts left.

    Raises:
        StoreError: it is no store, or another process changes it.
        OutputError: the store cannot be written.

    """
    versions, freed = 0, []
    with changing(store):
        state = read_state(store)
        kept = {version.image for version in (state.current, state.previous) if version}
        for folder in (store / VERSIONS_DIR, store / BLOBS_DIR):
            for partial in folder.glob(".*.partial"):
                remove_abandoned(partial)
        for folder in _versions(store):
            if folder.name not in kept:
                versions += _remove_unused(folder)
        for blob in _named(store / BLOBS_DIR):
            status = blob.lstat()
            if status.st_nlink == 1 and stat.S_ISREG(status.st_mode):
                blob.unlink()
                freed.append(status.st_size)
    return Collected(versions=versions, blobs=len(freed), bytes=sum(freed))


def _remove_unused(folder: Path) -> bool:
    """Remove a version that no agent has open. Under its name it is gone at once."""
    try:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:  # no agent opens it
        shutil.rmtree(folder)
        return True
    try:
        if not alone(descriptor):
            return False
        with aside(folder) as gone:
            folder.rename(gone)
    except PermissionError:  # Windows: a file in it is open
        return False
    finally:
        os.close(descriptor)
    return True


def _versions(store: Path) -> list[Path]:
    return _named(store / VERSIONS_DIR)


def _named(folder: Path) -> list[Path]:
    """What has a SHA-256 for a name, as all that an installation puts there. Other files are not the store's."""
    return sorted(path for path in folder.iterdir() if _SHA256.fullmatch(path.name))


def _version(folder: Path, state: StoreState) -> Version:
    try:
        release = read_manifest(folder).release
    except BundleError:
        release = None
    return Version(
        image=folder.name,
        release=release,
        bytes=sum(status.st_size for status in _files(folder)),
        current=folder.name == state.current.image,
        previous=state.previous is not None and folder.name == state.previous.image,
    )


def _files(folder: Path) -> Iterator[os.stat_result]:
    yield from (path.lstat() for path in folder.rglob("*") if path.is_file())
