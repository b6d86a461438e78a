"""What an update from one bundle to another costs: the blobs that the other has and the one has not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dualtune_edge.runtime.bundle.current import is_store, lease_current
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.runtime.store.pack import open_pack
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SIGNATURE
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.frozen import Frozen


class FileDifference(Frozen):
    """A file that is not the same in both. `moved`: bytes that an update fetches for it."""

    path: str
    what: Literal["added", "changed", "removed"]
    bytes: int  # in the second one; of a removed file in the first
    moved: int


class Difference(Frozen):
    """What `diff --json` prints: bytes of the second, and of its blobs that the first has not."""

    files: tuple[FileDifference, ...]
    same: int  # files
    bytes: int
    moved: int


def difference(old: Path, new: Path) -> Difference:
    """Compare two bundles: folders, packs or stores, by their hashes.

    Raises:
        BundleError, StoreError: one is none of these.

    """
    before, after = _files(old), _files(new)
    had = {digest for digest, _ in before.values()}
    files: list[FileDifference] = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        digest, size = after.get(path) or before[path]
        files.append(
            FileDifference(
                path=path,
                what="removed" if path not in after else "changed" if path in before else "added",
                bytes=size,
                moved=0 if digest in had else size,
            )
        )
        had.add(digest)  # a blob of two paths is fetched once
    return Difference(
        files=tuple(files),
        same=sum(before.get(path) == blob for path, blob in after.items()),
        bytes=sum(size for _, size in after.values()),
        moved=sum(file.moved for file in files),
    )


def _files(path: Path) -> dict[str, tuple[str, int]]:
    """Path → SHA-256 and size of every file, the signature too."""
    if is_store(path):
        path, _lease = lease_current(path)
    elif not (path / MANIFEST).exists():
        with open_pack(path) as pack:
            return {name: (blob.digest.removeprefix("sha256:"), blob.size) for name, blob in pack.files.items()}
    bundle = open_signed(path, None, verify="never")
    hashes = bundle.hashes
    if (path / SIGNATURE).exists():
        hashes[SIGNATURE] = sha256_file(path / SIGNATURE)
    return {name: (digest, (path / name).stat().st_size) for name, digest in hashes.items()}
