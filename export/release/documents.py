"""The documents of a release: its bill of materials, provenance and model card. The same bytes for the same bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualtune_edge.export.release.card import model_card
from dualtune_edge.export.release.provenance import provenance
from dualtune_edge.export.release.sbom import bill_of_materials
from dualtune_edge.export.release.subject import subject_of
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import published_folder
from dualtune_edge.toolkit.strict_json import Json

SBOM: Final = "sbom.cdx.json"
PROVENANCE: Final = "provenance.intoto.json"
CARD: Final = "README.md"
TYPES: Final = {  # file → media type
    SBOM: "application/vnd.cyclonedx+json",
    PROVENANCE: "application/vnd.in-toto+json",
    CARD: "text/markdown",
}
TAGS: Final = {SBOM: "sbom", PROVENANCE: "provenance", CARD: "card"}  # in a registry, behind the version


@dataclass(frozen=True)
class Document:
    """A document of a bundle."""

    name: str
    data: bytes

    @property
    def media_type(self) -> str:
        """Of the bytes."""
        return TYPES[self.name]


def describe_bundle(
    folder: Path, target: Path, *, spec: Path | None, evaluation: Path | None, builder: str | None
) -> Bundle:
    """Write the documents of a bundle into a new folder.

    Args:
        folder: the bundle.
        target: where nothing is yet.
        spec: what it was exported from: its files are listed by hash, once they are known to be those of the bundle.
        evaluation: what `evaluate --json` printed of the bundle.
        builder: the URI of the platform that exported it.

    Raises:
        BundleError: the bundle is damaged.
        EdgeError: the spec or its files cannot be read.
        SpecError: the evaluation or the spec is of another bundle.
        OutputError, RoomError: the folder cannot be written.

    """
    bundle = open_bundle(folder)
    subject = subject_of(bundle, evaluation)
    files = {
        SBOM: _json(bill_of_materials(subject)),
        PROVENANCE: _json(provenance(subject, spec, builder)),
        CARD: model_card(subject).encode(),
    }
    with published_folder(target) as workspace:
        for name, data in files.items():
            (workspace / name).write_bytes(data)
    return bundle


def read_documents(folder: Path, bundle: Bundle) -> tuple[Document, ...]:
    """The documents in a folder that `describe` wrote, of this bundle.

    Raises:
        SpecError: one is missing, or of another bundle.

    """
    digest = bundle.hashes[MANIFEST]
    documents = []
    for name in TYPES:
        path, expected = folder / name, "a document that `describe` wrote of this bundle"
        try:
            with path.open("rb") as file:
                data = file.read(limits.JSON_BYTES + 1)
        except OSError as error:
            raise SpecError(str(path), found=str(error), expected=expected, fix="Check the path.") from None
        if len(data) > limits.JSON_BYTES:
            raise SpecError(
                str(path), found=f"over {limits.JSON_BYTES} bytes", expected=expected, fix="Check the path."
            )
        if digest.encode() not in data:
            raise SpecError(
                str(path),
                found=f"nothing of {digest}",
                expected=expected,
                fix="Run: dualtune-edge describe BUNDLE -o DIR.",
            )
        documents.append(Document(name, data))
    return tuple(documents)


def _json(value: Json) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
