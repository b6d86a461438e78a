"""What lies in a bundle's folder: its manifest, and exactly the files that this lists, each plain and of its size."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from dualtune_edge.runtime.bundle.checks import damaged
from dualtune_edge.runtime.bundle.plain_files import read_plain
from dualtune_edge.runtime.bundle.signed import Trusted
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SEAL, SIGNATURE
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.validation import validate

_MOUNT_POINT: Final = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT: a junction, Windows' other kind of link
# What systems leave in any folder that is looked at. Nothing reads it.
_OF_THE_SYSTEM: Final = re.compile(r"\.DS_Store|\._.+|Thumbs\.db|desktop\.ini", re.IGNORECASE)


def read_manifest(root: Path, trusted: Trusted | None = None) -> Manifest:
    """The manifest of a bundle's folder.

    Args:
        root: the folder.
        trusted: the signature; its hash of the manifest is compared before the manifest is parsed.

    Raises:
        BundleError: there is none, or it is not as `export` wrote it.
        TrustError: it, or what it lists, is not what was signed.

    """
    path, seal = root / MANIFEST, root / SEAL
    try:
        data = read_plain(path, limits.JSON_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise BundleError(
            str(root),
            found=f"no {MANIFEST} that can be read: {error}",
            expected="a bundle's folder, as `export` writes it",
            fix="Check the path.",
        ) from None
    if trusted:
        trusted.check_bytes(MANIFEST, data)
    try:
        value = strict_json.loads(data)
    except strict_json.JsonError as error:
        raise damaged(path, found=str(error), expected="JSON") from None
    manifest = validate(Manifest, value, where=str(path), error=BundleError)
    if manifest.to_bytes() != data:
        raise damaged(path, found="bytes that are not canonical", expected="what `export` wrote")
    try:
        sealed = read_plain(seal, len(manifest.seal()))
    except OSError as error:
        sealed = str(error).encode()
    if sealed != manifest.seal():
        raise damaged(seal, found="another hash, or none", expected=manifest.seal().decode().strip())
    if trusted:
        trusted.check_bytes(SEAL, sealed)
        trusted.check_files(manifest)
    return manifest


def check_contents(manifest: Manifest, root: Path) -> None:
    """Compare a folder with its manifest.

    Raises:
        BundleError: a file or folder is missing, of another size, or not listed; or one is a link or a device.

    """
    sizes = {entry.path: entry.size for entry in manifest.files}
    folders = {parent.as_posix() for path in sizes for parent in PurePosixPath(path).parents}
    found: dict[str, int] = {}
    for path, status in _walk(root):
        name = path.relative_to(root).as_posix()
        if _is_folder(status):
            if name not in folders:
                raise damaged(path, found="a folder without listed files", expected="the listed files only")
        elif not stat.S_ISREG(status.st_mode):
            raise damaged(path, found="a link or a device", expected="plain files and folders")
        elif name in sizes or not _OF_THE_SYSTEM.fullmatch(path.name):
            found[name] = status.st_size
    for name in sorted(sizes.keys() - found.keys()):
        raise damaged(root / name, found="no such file", expected="the file that the manifest lists")
    for name in sorted(found.keys() - sizes.keys() - {MANIFEST, SEAL, SIGNATURE}):
        raise damaged(root / name, found="a file that the manifest does not list", expected="the listed files only")
    for name, size in sorted(sizes.items()):
        if found[name] != size:
            raise damaged(root / name, found=f"{found[name]} bytes", expected=f"{size}")


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a folder, without following links."""
    folders = [root]
    while folders:
        try:
            entries = [(path, path.lstat()) for path in sorted(folders.pop().iterdir())]
        except OSError as error:
            raise damaged(root, found=str(error), expected="a folder that can be read") from None
        folders += [path for path, status in entries if _is_folder(status)]
        yield from entries


def _is_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and getattr(status, "st_reparse_tag", 0) != _MOUNT_POINT
