"""Installs packs into a store: at every moment the version before or the new one is current, whole and on the disk.

    store/
      store.json            which version is current, which was before; replaced in one step
      versions/<image>/     a bundle's folder each; its files are hard links to blobs where the file system has them
      blobs/<sha256>        a file each: what two versions share is there once

A version is complete and synced before store.json names it, and store.json alone makes it current. What a power cut
leaves besides is named by nothing, and `collect` removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from dualtune_edge.runtime.bundle.contents import read_manifest
from dualtune_edge.runtime.bundle.current import is_store, read_state
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.runtime.bundle.plain_files import sha256_plain
from dualtune_edge.runtime.bundle.signed import Trusted
from dualtune_edge.runtime.store.pack import Pack, open_pack
from dualtune_edge.runtime.trust.policy import TrustPolicy
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SEAL, SIGNATURE
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.bundle.store import BLOBS_DIR, LOCK, STATE, VERSIONS_DIR, Change, Installed, StoreState
from dualtune_edge.toolkit.errors import BundleError, EdgeError, StoreError, TrustError
from dualtune_edge.toolkit.files import aside, publish, replace_file, sync, unwritable
from dualtune_edge.toolkit.lock import exclusive

_LOG: Final = 100  # changes that a store remembers
_OWN: Final = (MANIFEST, SEAL, SIGNATURE)  # what the manifest does not list


@dataclass(frozen=True)
class Installation:
    """What an installation did. Bytes of blobs that were written, and of those that the store had."""

    state: StoreState
    written: int
    shared: int


@contextlib.contextmanager
def changing(store: Path) -> Iterator[None]:
    """Hold a store while it changes.

    Raises:
        StoreError: another process changes it; or a part of it is a link, behind which nothing is written or removed.
        OutputError, RoomError: it cannot be written.

    """
    for name in (LOCK, STATE, VERSIONS_DIR, BLOBS_DIR):
        if (store / name).is_symlink():
            raise _refused(store / name, "a link", "a store's own file or folder", "Put it in place of the link.")
    try:
        with exclusive(store / LOCK):
            yield
    except BlockingIOError:
        raise StoreError(
            str(store), found="a process that changes it", expected="one at a time", fix="Try again when it is done."
        ) from None
    except OSError as error:
        raise unwritable(store, error) from None


def install(path: Path, store: Path, policy: TrustPolicy | None) -> Installation:
    """Install a pack, and make it the current version.

    Args:
        path: the pack.
        store: the folder of the store; made if it is not there.
        policy: the trust policy; None: a signature counts for nothing.

    Raises:
        BundleError: the pack is damaged, or its bundle.
        TrustError: the policy does not trust it. Nothing was written but an empty store.
        StoreError: the bundle is of another product, not newer than what was installed, or out of date.
        OutputError, RoomError: the store cannot be written.

    """
    with open_pack(path) as pack, changing(store):
        for name in (VERSIONS_DIR, BLOBS_DIR):
            (store / name).mkdir(exist_ok=True)
        sync(store)
        sync(store.resolve().parent)
        state = read_state(store) if is_store(store) else None
        target = store / VERSIONS_DIR / pack.image
        with aside(target) as workspace:
            workspace.mkdir()
            manifest = _read_manifest(pack, workspace, policy)
            installed = _installed(pack, manifest)
            again = state is not None and state.current == installed
            if not again:
                _refuse_old(store, state, installed)
            written, shared = 0, 0
            if not _is_open(target, policy):
                written, shared = _fill(pack, manifest, workspace, store / BLOBS_DIR)
                with _named(workspace, path):
                    open_signed(workspace, policy)
                publish(workspace, target)
        if state and again:  # it was there, or is whole again
            return Installation(state, written, shared)
        new = _changed(state, installed, "install")
        replace_file(store / STATE, new.to_bytes())
        return Installation(new, written, shared)


def roll_back(store: Path, policy: TrustPolicy | None) -> StoreState:
    """Make the version before the current one, whose place the current one takes.

    Raises:
        StoreError: there is none.
        BundleError, TrustError: it is damaged, or not trusted any more.

    """
    with changing(store):
        state = read_state(store)
        if state.previous is None:
            raise StoreError(
                str(store),
                found="no version before",
                expected="one that was current before",
                fix="Install a newer one.",
            )
        open_signed(store / VERSIONS_DIR / state.previous.image, policy)
        new = _changed(state, state.previous, "rollback")
        replace_file(store / STATE, new.to_bytes())
        return new


def _is_open(folder: Path, policy: TrustPolicy | None) -> bool:
    """Whether a version is there already, as after a power cut just before it became current. A damaged one goes.

    The pack's manifest is trusted by now: what is not in the folder was changed there.
    """
    if not folder.exists():
        return False
    try:
        open_signed(folder, policy)
    except (BundleError, TrustError):
        shutil.rmtree(folder)
        return False
    return True


def _changed(state: StoreState | None, current: Installed, by: Literal["install", "rollback"]) -> StoreState:
    now = Change(at=datetime.now(UTC), by=by, version=current.release.version, image=current.image)
    return StoreState(
        current=current,
        previous=state.current if state else None,
        highest=max(current.release.version, state.highest if state else 1),
        log=(*(state.log if state else ()), now)[-_LOG:],
    )


def _read_manifest(pack: Pack, workspace: Path, policy: TrustPolicy | None) -> Manifest:
    """The manifest, by the trust policy: the first that is read of the bundle."""
    for name in (MANIFEST, SEAL, *({SIGNATURE} & pack.files.keys())):
        (workspace / name).write_bytes(pack.read(name))
    with _named(workspace, pack.path):
        return read_manifest(workspace, Trusted.of(workspace, policy) if policy else None)


@contextlib.contextmanager
def _named(workspace: Path, path: Path) -> Iterator[None]:
    """Have errors name the pack, and not the folder in which it was unpacked."""
    try:
        yield
    except EdgeError as error:
        where = error.where.replace(str(workspace), str(path))
        raise type(error)(where, found=error.found, expected=error.expected, fix=error.fix) from None


def _installed(pack: Pack, manifest: Manifest) -> Installed:
    if manifest.release is None:
        raise StoreError(
            str(pack.path),
            found="a bundle without product and version",
            expected="one with a `release`, which its spec names",
            fix="Export it with a `release`.",
        )
    digest = pack.files[MANIFEST].digest.removeprefix("sha256:")
    return Installed(image=pack.image, manifest_sha256=digest, release=manifest.release)


def _refuse_old(store: Path, state: StoreState | None, new: Installed) -> None:
    """Refuse what no update may bring: another product, an older version, one that was rolled back, one out of date."""
    release = new.release
    if release.expires is not None and datetime.now(UTC).date() > release.expires:
        raise _refused(
            store, f"{release}, which was to be replaced by {release.expires}", "a newer version", "Fetch it."
        )
    if state is None:
        return
    if release.product != state.current.release.product:
        raise _refused(
            store, f"a bundle of {release.product!r}", repr(state.current.release.product), "Use another store."
        )
    if new.manifest_sha256 == state.current.manifest_sha256:  # signed again
        return
    if release.version <= state.highest:
        raise _refused(
            store,
            f"version {release.version}",
            f"a later one than {state.highest}, the latest that was installed",
            "Release it under a later version; to go back, run: dualtune-edge rollback.",
        )


def _refused(store: Path, found: str, expected: str, fix: str) -> StoreError:
    return StoreError(str(store), found=found, expected=expected, fix=fix)


def _fill(pack: Pack, manifest: Manifest, workspace: Path, blobs: Path) -> tuple[int, int]:
    """Put the listed files into a version's folder: bytes that were written, and that the store had."""
    listed = {entry.path: (f"sha256:{entry.sha256}", entry.size) for entry in manifest.files}
    packed = {path: (blob.digest, blob.size) for path, blob in pack.files.items() if path not in _OWN}
    if listed != packed:
        different = min(path for path in listed.keys() | packed.keys() if listed.get(path) != packed.get(path))
        raise BundleError(
            str(pack.path),
            found=f"{different!r}, which manifest and image do not both list, with one hash",
            expected="a pack of one bundle",
            fix="Pack the bundle again.",
        )
    written = shared = 0
    with aside(blobs / "incoming") as incoming:
        for entry in manifest.files:
            blob = blobs / entry.sha256
            if _is_whole(blob, entry.sha256):
                shared += entry.size
            else:
                _write(pack.pieces(entry.path), incoming)
                incoming.replace(blob)
                written += entry.size
            path = workspace / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(blob, path)
    sync(blobs)
    return written, shared


def _is_whole(blob: Path, digest: str) -> bool:
    """Whether a blob is there, as it was written. A damaged one is replaced; versions that have it keep theirs."""
    try:
        return sha256_plain(blob) == digest
    except FileNotFoundError:
        return False


def _write(pieces: Iterator[bytes], path: Path) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or where the file system has none, or too many of one file, a copy.

    Raises:
        OSError: neither can be made.

    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
