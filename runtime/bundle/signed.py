"""Whether a bundle is signed as the trust policy asks: known before its manifest is parsed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dualtune_edge.runtime.bundle.plain_files import read_plain
from dualtune_edge.runtime.trust.policy import TrustPolicy
from dualtune_edge.runtime.trust.statement import SignedFiles
from dualtune_edge.toolkit import extras, limits
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SEAL, SIGNATURE
from dualtune_edge.toolkit.bundle.manifest import Manifest, Release
from dualtune_edge.toolkit.errors import TrustError


@dataclass(frozen=True)
class Trusted:
    """A bundle's signature, verified; `files` is None where there is none and the policy asks for none."""

    root: Path
    policy: TrustPolicy
    files: SignedFiles | None

    @classmethod
    def of(cls, root: Path, policy: TrustPolicy, signature: Path | None = None) -> Trusted:
        """Verify the signature in a bundle's folder, or that in another file.

        Raises:
            TrustError: there is none, or the policy does not trust it.
            MissingExtraError: the package that verifies it is not installed.

        """
        path = root / SIGNATURE if signature is None else signature
        try:
            data = read_plain(path, limits.JSON_BYTES)
        except FileNotFoundError:
            if policy.required or signature is not None:
                raise _untrusted(path, "no signature", "a bundle that is signed") from None
            return cls(root, policy, None)
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise _untrusted(path, str(error), "a signature that can be read") from None
        try:
            from dualtune_edge.runtime.trust.signature import verify  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError as error:
            raise extras.missing(error, f"the signature {path}") or error from None
        return cls(root, policy, verify(data, policy, str(path), datetime.now(UTC)))

    @property
    def signer(self) -> str | None:
        """The name that the policy gives to whoever signed; None: nobody did."""
        return self.files.signer if self.files else None

    def check_bytes(self, name: str, data: bytes) -> None:
        """Refuse a file that was not signed as it is; the manifest also if the policy revokes it.

        Raises:
            TrustError: so it is.

        """
        digest = hashlib.sha256(data).hexdigest()
        if self.files and self.files.hashes.get(name) != digest:
            raise _untrusted(
                self.root / name,
                f"SHA-256 {digest}",
                f"what {self.files.signer!r} signed: {self.files.hashes.get(name)}",
            )
        if name == MANIFEST and digest in self.policy.revoked_bundles:
            raise _untrusted(self.root, f"a bundle that is revoked, {digest}", "one that is not")

    def check_files(self, manifest: Manifest) -> None:
        """Refuse a manifest that lists other files than were signed, or with other hashes; or is of an old version.

        Raises:
            TrustError: so it does.

        """
        self._check_version(manifest.release)
        if self.files is None:
            return
        listed = {entry.path: entry.sha256 for entry in manifest.files}
        signed = {name: digest for name, digest in self.files.hashes.items() if name not in {MANIFEST, SEAL}}
        if different := sorted(name for name in listed.keys() | signed.keys() if listed.get(name) != signed.get(name)):
            raise _untrusted(
                self.root / different[0],
                "a file that the manifest and the signature do not both list, with one hash",
                f"the files that {self.files.signer!r} signed",
            )

    def _check_version(self, release: Release | None) -> None:
        """Signed once, an old bundle stays signed: a version below the policy's lowest is refused."""
        lowest = self.policy.minimum_versions
        if release is None and lowest:
            raise _untrusted(self.root, "no product and version", "a bundle of a release, as the policy names versions")
        if release is not None and release.version < lowest.get(release.product, 0):
            raise _untrusted(self.root, str(release), f"version {lowest[release.product]} or a later one")


def _untrusted(path: Path, found: str, expected: str) -> TrustError:
    return TrustError(
        str(path), found=found, expected=expected, fix="Check the path, or take the bundle from where it is signed."
    )
