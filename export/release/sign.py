"""Signs a finished bundle, in the format of OpenSSF Model Signing and by its own library."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_signing import hashing, signing

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.runtime.trust.signature import unverified
from dualtune_edge.toolkit.bundle.layout import SIGNATURE
from dualtune_edge.toolkit.errors import BundleError, EdgeError, SpecError
from dualtune_edge.toolkit.files import replace_file, unwritable

_ON_A_TOKEN: Final = "pkcs11:"  # noqa: S105 - how the URI of a key on a token begins


@dataclass(frozen=True)
class SigningKey:
    """A private key: a PEM file, or the PKCS#11 URI of one on a token; and the certificates that vouch for it."""

    key: str
    certificate: Path | None = None  # the key's own
    chain: tuple[Path, ...] = ()  # those above it
    password: str | None = None  # of the file
    modules: tuple[Path, ...] = ()  # folders with PKCS#11 libraries

    def configure(self, config: signing.Config) -> None:
        """Have the library sign with this key."""
        if self.key.startswith(_ON_A_TOKEN):
            modules = [str(module) for module in self.modules]
            if self.certificate is None:
                config.use_pkcs11_signer(pkcs11_uri=self.key, module_paths=modules)
            else:
                config.use_pkcs11_certificate_signer(
                    pkcs11_uri=self.key,
                    signing_certificate=self.certificate,
                    certificate_chain=self.chain,
                    module_paths=modules,
                )
        elif self.certificate is None:
            password = self.password and self.password.encode()  # annotated as str, and passed on where bytes are due
            config.use_elliptic_key_signer(private_key=self.key, password=password)
        else:
            config.use_certificate_signer(
                private_key=self.key, signing_certificate=self.certificate, certificate_chain=self.chain
            )


def sign_bundle(folder: Path, key: SigningKey, signature: Path | None = None) -> Bundle:
    """Sign every file of a bundle, after all of it was verified as `inspect` does.

    Args:
        folder: the bundle.
        key: who signs.
        signature: where the signature is written; by default into the bundle, in place of the one that is there.

    Returns:
        The bundle.

    Raises:
        BundleError: the bundle is damaged, or was changed meanwhile.
        SpecError: the key cannot be used.
        OutputError, RoomError: the signature cannot be written.

    """
    bundle = open_signed(folder, None)
    data = _signature(bundle, key)
    if unverified(data) != bundle.hashes:
        raise BundleError(
            str(folder),
            found="files that changed while they were signed",
            expected="a bundle at rest",
            fix="Try again.",
        )
    target = signature or folder / SIGNATURE
    try:
        replace_file(target, data)
    except OSError as error:
        raise unwritable(target, error) from None
    return bundle


def _signature(bundle: Bundle, key: SigningKey) -> bytes:
    """The signature's file, as the library writes it."""
    folder = bundle.root
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    ignored = sorted((files - bundle.hashes.keys()) | {SIGNATURE})
    config = signing.Config().set_hashing_config(
        hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SIGNATURE
        try:
            key.configure(config)
            config.sign(folder, path)
            return path.read_bytes()
        except EdgeError:
            raise
        except Exception as error:  # noqa: BLE001 - the libraries' own, of many kinds
            raise SpecError(
                "the signing key",
                found=str(error) or type(error).__name__,
                expected="a private key on P-256, P-384 or P-521, and its certificates",
                fix="Check the files, the URI and the password: docs/signing.md.",
            ) from None
