"""Packs a bundle: an OCI image layout, in one tar file or in a folder, of the same bytes each time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from dualtune_edge.export.release.documents import TAGS, TYPES, Document, read_documents
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.runtime.bundle.plain_files import open_plain
from dualtune_edge.toolkit.bundle import oci, tar
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SEAL, SIGNATURE
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.files import aside, publish, published_folder, refuse_existing, sha256_file, unwritable

_CHUNK: Final = 1 << 20  # bytes copied at a time
_FIRST: Final = (MANIFEST, SEAL, SIGNATURE)  # what a device reads before all else


@dataclass(frozen=True)
class Packed:
    """What was packed. `digest`: of the image's manifest, by which a registry knows it."""

    bundle: Bundle
    digest: str
    signed: bool


def pack_bundle(folder: Path, target: Path, *, layout: bool, documents: Path | None = None) -> Packed:
    """Pack a bundle, after all of it was verified.

    Args:
        folder: the bundle.
        target: where nothing is yet.
        layout: a folder is written, not a tar file.
        documents: the folder of its documents, which become referrers of the image; None: there are none.

    Raises:
        BundleError: the bundle is damaged.
        SpecError: a document is missing, or of another bundle.
        OutputError, RoomError: the pack cannot be written.

    """
    refuse_existing(target)
    bundle = open_signed(folder, None)
    image = _image(bundle)
    data = image.to_bytes()
    attached = read_documents(documents, bundle) if documents else ()
    referrers = {document.name: _referrer(document, data).to_bytes() for document in attached}
    blobs = [data, oci.EMPTY_BYTES, *(document.data for document in attached), *referrers.values()]
    files = {
        oci.LAYOUT: oci.LAYOUT_BYTES,
        oci.INDEX: _index(bundle, data, referrers).to_bytes(),
        **{_blob(hashlib.sha256(blob).hexdigest()): blob for blob in blobs},
    }
    paths: dict[str, tuple[oci.Descriptor, Path]] = {}
    for layer in image.layers:
        paths.setdefault(
            _blob(layer.digest.removeprefix("sha256:")), (layer, folder / (layer.annotations or {})[oci.TITLE])
        )
    for name in files:
        paths.pop(name, None)
    if layout:
        _write_folder(target, files, paths)
    else:
        _write_archive(target, files, paths)
    return Packed(bundle, f"sha256:{hashlib.sha256(data).hexdigest()}", (folder / SIGNATURE).exists())


def _image(bundle: Bundle) -> oci.Image:
    """The image's manifest; the layers in the order in which a device reads them."""
    manifest, sizes = bundle.manifest, {entry.path: entry.size for entry in bundle.manifest.files}
    hashes = bundle.hashes
    signature = bundle.root / SIGNATURE
    if signature.exists():
        hashes[SIGNATURE] = sha256_file(signature)
    sizes |= {name: (bundle.root / name).stat().st_size for name in _FIRST if name in hashes}
    paths = sorted(hashes, key=lambda path: (_FIRST.index(path) if path in _FIRST else len(_FIRST), path))
    release = manifest.release
    return oci.Image(
        config=_descriptor(oci.EMPTY_BYTES, oci.EMPTY),
        layers=[
            oci.Descriptor(
                media_type=oci.media_type(path),
                digest=f"sha256:{hashes[path]}",
                size=sizes[path],
                annotations={oci.TITLE: path},
            )
            for path in paths
        ],
        annotations={
            **({oci.TITLE: release.product, oci.VERSION: str(release.version)} if release else {}),
            **({oci.LICENSES: bundle.licences.expression} if bundle.licences else {}),
            oci.BASE: manifest.base.name,
            oci.MANIFEST_SHA256: hashes[MANIFEST],
        },
    )


def _referrer(document: Document, image: bytes) -> oci.Referrer:
    """The image of a document. Registries list it by its subject; those that do not, by its tag."""
    return oci.Referrer(
        artifact_type=document.media_type,
        config=_descriptor(oci.EMPTY_BYTES, oci.EMPTY),
        layers=[_descriptor(document.data, document.media_type, annotations={oci.TITLE: document.name})],
        subject=_descriptor(image, oci.IMAGE),
    )


def _index(bundle: Bundle, image: bytes, referrers: Mapping[str, bytes]) -> oci.Index:
    """The bundle's image by its version, and its documents by version and name."""
    release = bundle.manifest.release
    tag = str(release.version) if release else None
    listed = [
        _descriptor(image, oci.IMAGE, artifact_type=oci.BUNDLE, annotations={oci.REFERENCE: tag} if tag else None)
    ]
    for name, data in referrers.items():
        reference = {oci.REFERENCE: f"{tag}-{TAGS[name]}"} if tag else None
        listed.append(_descriptor(data, oci.IMAGE, artifact_type=TYPES[name], annotations=reference))
    return oci.Index(manifests=listed)


def _descriptor(
    data: bytes, media_type: str, *, artifact_type: str | None = None, annotations: dict[str, str] | None = None
) -> oci.Descriptor:
    return oci.Descriptor(
        media_type=media_type,
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        size=len(data),
        artifact_type=artifact_type,
        annotations=annotations,
    )


def _blob(digest: str) -> str:
    return f"{oci.BLOBS}/{digest}"


def _write_folder(target: Path, files: dict[str, bytes], paths: dict[str, tuple[oci.Descriptor, Path]]) -> None:
    """Blobs become hard links to the bundle's files where the file system has them."""
    with published_folder(target) as workspace:
        (workspace / oci.BLOBS).mkdir(parents=True)
        for name, data in files.items():
            (workspace / name).write_bytes(data)
        for name, (_, path) in paths.items():
            try:
                os.link(path, workspace / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(path, workspace / name)


def _write_archive(target: Path, files: dict[str, bytes], paths: dict[str, tuple[oci.Descriptor, Path]]) -> None:
    try:
        with aside(target) as workspace:
            with workspace.open("xb") as file:
                for name, data in files.items():
                    file.write(tar.header(name, len(data)) + data + tar.padding(len(data)))
                for name, (blob, path) in paths.items():
                    file.write(tar.header(name, blob.size))
                    _copy(path, blob, file)
                    file.write(tar.padding(blob.size))
                file.write(tar.END)
            publish(workspace, target)
    except OSError as error:
        raise unwritable(target, error) from None


def _copy(path: Path, blob: oci.Descriptor, target: BinaryIO) -> None:
    """Copy a file that was hashed before, and hash it once more: it may have changed since."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
        target.write(piece)
    if f"sha256:{digest.hexdigest()}" != blob.digest:
        raise BundleError(
            str(path), found="a file that changed while it was packed", expected="a bundle at rest", fix="Try again."
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with open_plain(path) as file:
        while piece := file.read(_CHUNK):
            yield piece
