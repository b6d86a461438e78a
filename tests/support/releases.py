"""Releases of a bundle, and packs of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from signatures import TestKey, sign

from dualtune_edge.export.release.pack import pack_bundle
from dualtune_edge.toolkit.bundle.manifest import FileEntry, Manifest, Release
from dualtune_edge.toolkit.files import sha256_file


def release(bundle: Path, target: Path, release: Release | None, *, changed: bytes = b"") -> Path:
    """A copy of a bundle as a release; with `changed` behind a file that nothing reads on a device."""
    shutil.copytree(bundle, target)
    record = target / "export.json"
    record.write_bytes(record.read_bytes() + changed)
    manifest = Manifest.model_validate_json((target / "manifest.json").read_bytes())
    entry = FileEntry(path="export.json", size=record.stat().st_size, sha256=sha256_file(record))
    files = tuple(entry if file.path == entry.path else file for file in manifest.files)
    manifest = manifest.model_copy(update={"release": release, "files": files})
    (target / "manifest.json").write_bytes(manifest.to_bytes())
    (target / "manifest.sha256").write_bytes(manifest.seal())
    return target


def pack_release(
    bundle: Path,
    folder: Path,
    version: int,
    *,
    key: TestKey | None = None,
    product: str = "helper",
    suffix: str = ".tar",
) -> Path:
    """The pack of a version, signed if there is a key: each version has other contents."""
    target = folder / f"{product}-{version}"
    release(bundle, target, Release(product=product, version=version), changed=b" " * version)
    if key:
        sign(target, key)
    pack = target.with_name(target.name + suffix)
    pack_bundle(target, pack, layout=suffix != ".tar")
    return pack
