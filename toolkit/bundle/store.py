"""What a store of bundles says of itself: one small file, replaced in one step."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AwareDatetime, Field

from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.frozen import Frozen

STATE: Final = "store.json"
VERSIONS_DIR: Final = "versions"  # a bundle's folder each, named by its image
BLOBS_DIR: Final = "blobs"  # a file each, named by its SHA-256; versions are hard links to them
LOCK: Final = "lock"  # held while the store changes
_Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Installed(Frozen):
    """A version of the product. `image`: SHA-256 of the pack's image manifest; the signature counts in it."""

    image: _Sha256
    manifest_sha256: _Sha256
    release: Release


class Change(Frozen):
    """What was made current, when and by which command."""

    at: AwareDatetime
    by: Literal["install", "rollback"]
    version: int
    image: _Sha256


class StoreState(Frozen):
    """The whole of `store.json`. A store holds the versions of one product; `highest` was ever current."""

    format: Literal["dualtune-edge-store"] = "dualtune-edge-store"
    version: Literal[1] = 1
    current: Installed
    previous: Installed | None = None
    highest: Annotated[int, Field(ge=1)]
    log: tuple[Change, ...] = ()

    def to_bytes(self) -> bytes:
        """Of the file."""
        return (self.model_dump_json(indent=1) + "\n").encode()
