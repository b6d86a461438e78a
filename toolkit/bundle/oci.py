"""A bundle as an OCI image: one blob a file, listed by the image's manifest. docs/store.md has the media types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.layout import MANIFEST, PROMPTS_DIR, SIGNATURE

LAYOUT: Final = "oci-layout"  # the file by which a layout is known
INDEX: Final = "index.json"
BLOBS: Final = "blobs/sha256"
LAYOUT_BYTES: Final = b'{"imageLayoutVersion":"1.0.0"}'
IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
BUNDLE: Final = "application/vnd.dualtune-edge.bundle.v1"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
EMPTY_BYTES: Final = b"{}"  # the config of an image that needs none
TITLE: Final = "org.opencontainers.image.title"  # of a blob: the file's path in the bundle
REFERENCE: Final = "org.opencontainers.image.ref.name"
VERSION: Final = "org.opencontainers.image.version"  # of the release
LICENSES: Final = "org.opencontainers.image.licenses"
BASE: Final = "dev.dualtune-edge.base"
MANIFEST_SHA256: Final = "dev.dualtune-edge.manifest.sha256"
_KINDS: Final[Mapping[str, str]] = {
    ".onnx": "application/vnd.dualtune-edge.graph.v1",
    ".data": "application/vnd.dualtune-edge.weights.v1",
    ".npy": "application/vnd.dualtune-edge.weights.v1",
    ".onnx_adapter": "application/vnd.dualtune-edge.adapter.v1",
    ".kv": "application/vnd.dualtune-edge.state.v1",
    ".toml": "application/toml",
    ".json": "application/json",
    ".sha256": "text/plain",
}
Digest: TypeAlias = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Value(BaseModel):
    """Written by alias; unknown keys are passed over, for other tools add theirs."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", populate_by_name=True)

    def to_bytes(self) -> bytes:
        """JSON without spaces, keys in the order of the fields, without those that are None."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Descriptor(_Value):
    """A blob: its type, hash and size."""

    media_type: Annotated[str, Field(alias="mediaType")]
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    artifact_type: Annotated[str | None, Field(alias="artifactType")] = None
    annotations: dict[str, str] | None = None


class Image(_Value):
    """The manifest of an image; `layers` are the files of the bundle."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")] = 2
    media_type: Annotated[Literal["application/vnd.oci.image.manifest.v1+json"], Field(alias="mediaType")] = IMAGE
    artifact_type: Annotated[Literal["application/vnd.dualtune-edge.bundle.v1"], Field(alias="artifactType")] = BUNDLE
    config: Descriptor
    layers: Annotated[list[Descriptor], Field(max_length=limits.BUNDLE_FILES + 3)]
    annotations: dict[str, str] | None = None


class Referrer(_Value):
    """The manifest of a document that refers to an image, its `subject`."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")] = 2
    media_type: Annotated[Literal["application/vnd.oci.image.manifest.v1+json"], Field(alias="mediaType")] = IMAGE
    artifact_type: Annotated[str, Field(alias="artifactType")]
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor
    annotations: dict[str, str] | None = None


class Index(_Value):
    """The images of a layout."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")] = 2
    media_type: Annotated[str, Field(alias="mediaType")] = "application/vnd.oci.image.index.v1+json"
    manifests: list[Descriptor]


def media_type(path: str) -> str:
    """Of a file of the bundle."""
    if path == MANIFEST:
        return "application/vnd.dualtune-edge.manifest.v1+json"
    if path == SIGNATURE:
        return "application/vnd.dev.sigstore.bundle.v0.3+json"
    if path.startswith(f"{PROMPTS_DIR}/"):
        return "application/vnd.dualtune-edge.prompt.v1+json"
    return _KINDS.get(f".{path.rpartition('.')[2]}", "application/octet-stream")
