"""Keys and certificates: which of those that a policy trusts made a signature."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from dualtune_edge.runtime.trust.policy import TrustedKey, TrustedRoot

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}  # curve → hash, as Model Signing pairs them


class UntrustedKeyError(ValueError):
    """Why a key or a certificate does not count."""


class Key:
    """The public key of a signature; `authorities` are the keys that vouch for it, up to the root's."""

    def __init__(
        self, name: str, public: ec.EllipticCurvePublicKey, authorities: Sequence[x509.Certificate] = ()
    ) -> None:
        self.name, self._public = name, public
        others = (certificate.public_key() for certificate in authorities)
        self.fingerprints = [_fingerprint(public), *map(_fingerprint, others)]

    @property
    def hint(self) -> str:
        """By what a signature names the key: SHA-256 of its PEM."""
        return hashlib.sha256(self._public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def check(self, message: bytes, signature: bytes) -> None:
        """Refuse a signature that is not this key's, of this message.

        Raises:
            UntrustedKeyError: so it is.

        """
        try:
            self._public.verify(signature, message, ec.ECDSA(_HASHES[self._public.curve.name]))
        except InvalidSignature:
            raise UntrustedKeyError(f"a signature that is not by the key of {self.name!r}, or of other files") from None


def trusted_key(trusted: TrustedKey) -> Key:
    """The key of a policy.

    Raises:
        UntrustedKeyError: it cannot be used.

    """
    try:
        public = load_pem_public_key(trusted.public_key.encode())
    except Exception as error:  # noqa: BLE001 - of several kinds, and of a library's own
        raise UntrustedKeyError(f"a text that is no public key: {error}") from None
    return Key(trusted.name, _on_a_known_curve(public))


def trusted_certificate(trusted: TrustedRoot) -> x509.Certificate:
    """The certificate of a policy.

    Raises:
        UntrustedKeyError: it cannot be used.

    """
    try:
        return x509.load_pem_x509_certificate(trusted.certificate.encode())
    except Exception as error:  # noqa: BLE001 - as above
        raise UntrustedKeyError(f"a text that is no certificate: {error}") from None


def certified_key(root: TrustedRoot, chain: Iterable[bytes], now: datetime) -> Key:
    """The key of a chain's first certificate, which may sign, if the chain leads to the root.

    Args:
        root: the authority.
        chain: certificates in DER, that of the key first.
        now: the moment at which all of them must be valid.

    Raises:
        UntrustedKeyError: a certificate cannot be read, is out of date or may not sign; or the chain leads elsewhere.

    """
    anchor = trusted_certificate(root)
    try:
        leaf, *between = (x509.load_der_x509_certificate(certificate) for certificate in chain)
        verifier = (
            verification.PolicyBuilder()
            .store(verification.Store([anchor]))
            .time(now)
            .extension_policies(ca_policy=_AUTHORITY, ee_policy=verification.ExtensionPolicy.permit_all())
            .build_client_verifier()
        )
        verified = verifier.verify(leaf, between).chain
        public = _on_a_known_curve(verified[0].public_key())
        may_sign = _may_sign(leaf.extensions)
    except UntrustedKeyError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise UntrustedKeyError(f"a certificate that does not count: {error}") from None
    if not may_sign:
        raise UntrustedKeyError("a certificate that is not for signing: neither digitalSignature nor codeSigning")
    return Key(root.name, public, verified[1:])


def _may_sign(extensions: x509.Extensions) -> bool:
    """By either kind of usage, as Model Signing asks."""
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage) and extension.value.digital_signature:
            return True
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            return ExtendedKeyUsageOID.CODE_SIGNING in extension.value
    return False


def _is_authority(_policy: verification.Policy, _: x509.Certificate, extension: x509.BasicConstraints) -> None:
    if not extension.ca:
        raise ValueError("a certificate that is no authority's")


def _may_certify(_policy: verification.Policy, _: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("an authority that may not certify")


_AUTHORITY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _may_certify)
)


def _on_a_known_curve(public: object) -> ec.EllipticCurvePublicKey:
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _HASHES:
        return public
    raise UntrustedKeyError("a key that is not on the curve P-256, P-384 or P-521")


def _fingerprint(public: object) -> str:
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return hashlib.sha256(der).hexdigest()
