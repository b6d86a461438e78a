"""Opens the current version of a store, and keeps it while it is used: `gc` leaves it alone."""

from __future__ import annotations

import os
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.bundle.plain_files import read_plain
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.bundle.store import STATE, VERSIONS_DIR, StoreState
from dualtune_edge.toolkit.errors import StoreError
from dualtune_edge.toolkit.lock import shared
from dualtune_edge.toolkit.validation import validate

_TRIES: Final = 8  # a version that is gone was replaced meanwhile; so often in a row it is not


@dataclass(frozen=True)
class Lease:
    """A version in use: held until nothing refers to this any more, or the process ends."""

    store: Path
    image: str

    @property
    def superseded(self) -> str | None:
        """The release that the store has as its current one by now; None: still this."""
        current = read_state(self.store).current
        return None if current.image == self.image else str(current.release)


def is_store(path: Path) -> bool:
    """Whether a folder is a store, and not a bundle."""
    try:
        return (path / STATE).is_file()
    except OSError:  # a name that is too long, or no right to look: the bundle's own error says so
        return False


def read_state(store: Path) -> StoreState:
    """What a store says of itself.

    Raises:
        StoreError: there is none, or it is damaged.

    """
    path = store / STATE
    try:
        value = strict_json.loads(read_plain(path, limits.JSON_BYTES))
    except (OSError, strict_json.JsonError, ValueError) as error:
        raise StoreError(
            str(path), found=str(error), expected="a store of bundles", fix="Check the path, or install into it."
        ) from None
    return validate(StoreState, value, where=str(path), error=StoreError)


def lease_current(store: Path) -> tuple[Path, Lease]:
    """The folder of the current version, and what holds it.

    Raises:
        StoreError: the store is damaged.

    """
    store = store.resolve()
    for _ in range(_TRIES):
        image = read_state(store).current.image
        folder = store / VERSIONS_DIR / image
        descriptor = _held(folder / MANIFEST)
        if descriptor is not None:
            lease = Lease(store, image)
            weakref.finalize(lease, os.close, descriptor)
            return folder, lease
    raise StoreError(
        str(folder), found="no such version", expected="the current version", fix="Install the pack of it again."
    )


def _held(path: Path) -> int | None:
    """A descriptor that holds the version until it is closed; None: the version is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    if sys.platform == "win32":  # what is open is not removed there
        return descriptor
    try:
        shared(descriptor)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
