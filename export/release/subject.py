"""What a release's documents speak of: one bundle, with what was measured of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.evaluate.report import Evaluation
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.bundle.adapters import AdapterEntry
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.bundle.licences import Licences, PartLicence
from dualtune_edge.toolkit.bundle.manifest import FileEntry
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.validation import validate

EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"  # reproducible-builds.org


@dataclass(frozen=True)
class Subject:
    """A bundle, whole. `evaluation` is of this bundle; `made_at` None: documents have no times."""

    bundle: Bundle
    evaluation: Evaluation | None
    made_at: datetime | None

    @property
    def name(self) -> str:
        """The product, or the base."""
        manifest = self.bundle.manifest
        return manifest.release.product if manifest.release else manifest.base.name

    @property
    def version(self) -> str | None:
        """Of the release."""
        release = self.bundle.manifest.release
        return str(release.version) if release else None

    @property
    def manifest_sha256(self) -> str:
        """By which a trust policy knows the bundle."""
        return self.bundle.hashes[MANIFEST]

    @property
    def licences(self) -> Licences | None:
        """None: a bundle from before they were recorded."""
        return self.bundle.licences

    def licence(self, name: str) -> PartLicence | None:
        """That of the base, or of an adapter."""
        parts = self.licences.parts if self.licences else ()
        return next((part for part in parts if part.name == name), None)

    def files_below(self, path: str) -> Iterator[FileEntry]:
        """The file at a path, or those in the folder there."""
        yield from (
            file for file in self.bundle.manifest.files if file.path == path or file.path.startswith(f"{path}/")
        )

    def files_of(self, adapter: AdapterEntry) -> tuple[FileEntry, ...]:
        """An adapter's file, or its graph's folder."""
        return tuple(self.files_below(adapter.path))

    @property
    def moment(self) -> str | None:
        """`made_at` as RFC 3339 has it."""
        return f"{self.made_at:%Y-%m-%dT%H:%M:%SZ}" if self.made_at else None


def subject_of(bundle: Bundle, evaluation: Path | None) -> Subject:
    """A bundle with what `evaluate --json` found of it.

    Raises:
        SpecError: the evaluation cannot be read, or is of another bundle; SOURCE_DATE_EPOCH is no moment.

    """
    subject = Subject(bundle, _evaluation(evaluation) if evaluation else None, _epoch())
    found = subject.evaluation
    if found and found.ours.manifest_sha256 != subject.manifest_sha256:
        raise SpecError(
            str(evaluation),
            found=f"an evaluation of the bundle {found.ours.manifest_sha256}",
            expected=f"one of {bundle.name}, {subject.manifest_sha256}",
            fix="Evaluate this bundle: dualtune-edge evaluate BUNDLE --data FILE --json.",
        )
    return subject


def _evaluation(path: Path) -> Evaluation:
    try:
        with path.open("rb") as file:
            value = strict_json.loads(file.read(limits.JSON_BYTES + 1))
    except (OSError, strict_json.JsonError) as error:
        raise SpecError(
            str(path), found=str(error), expected="what `evaluate --json` prints", fix="Check the path."
        ) from None
    return validate(Evaluation, value, where=f"{path}, read as what `evaluate --json` prints", error=SpecError)


def _epoch() -> datetime | None:
    text = os.environ.get(EPOCH_VARIABLE)
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise SpecError(
            EPOCH_VARIABLE,
            found=repr(text),
            expected="seconds since 1970, as a whole number",
            fix="Unset it, or set it.",
        ) from None
