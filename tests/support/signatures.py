"""Keys, certificates and trust policies for tests, and a signer that also writes what no other would."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from dualtune_edge.runtime.trust.policy import TrustedKey, TrustedRoot, TrustPolicy

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
_HASHES: Final = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


@dataclass(frozen=True)
class TestKey:
    """A private key, with the certificates that vouch for it: its own first."""

    __test__ = False

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> str:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def fingerprint(self) -> str:
        public = self.private.public_key()
        return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def write(self, path: Path) -> Path:
        path.write_bytes(self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return path

    def trusted(self, name: str = "release", **dates: datetime) -> TrustedKey:
        return TrustedKey(name=name, public_key=self.pem, **dates)

    def certified(self, name: str, by: TestKey | None = None, **form: Any) -> TestKey:
        """The same key with a certificate, its own (None) or by another key's."""
        issuer, above = (by.private, by.chain) if by else (self.private, ())
        own = certificate(name, self.private, above[0].subject if above else None, issuer, **form)
        return TestKey(self.private, (own, *above))

    def root(self, name: str = "authority", **dates: datetime) -> TrustedRoot:
        return TrustedRoot(name=name, certificate=pem(self.chain[-1]), **dates)


def pem(own: x509.Certificate) -> str:
    return own.public_bytes(Encoding.PEM).decode()


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
    signs: bool = True,
    until: datetime = NOW + 365 * DAY,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=signs and not authority,
        key_cert_sign=signs and authority,
        content_commitment=True,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 30 * DAY)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def policy(*trusted: TrustedKey | TrustedRoot, **others: Any) -> TrustPolicy:
    return TrustPolicy(
        format="dualtune-edge-trust",
        version=1,
        keys=tuple(entry for entry in trusted if isinstance(entry, TrustedKey)),
        roots=tuple(entry for entry in trusted if isinstance(entry, TrustedRoot)),
        **others,
    )


def write_policy(trust: TrustPolicy, path: Path) -> Path:
    """As a TOML file."""
    value = trust.model_dump(mode="json", exclude_none=True)
    tables = [(name, entry) for name in ("keys", "roots") for entry in value.pop(name)]
    lines = [f"{name} = {json.dumps(item)}" for name, item in value.items() if item != {}]
    for name, entry in tables:
        lines += ["", f"[[{name}]]", *(f"{key} = {_toml(key, item)}" for key, item in entry.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(key: str, item: str) -> str:
    return item if key in {"not_before", "expires"} else json.dumps(item)


def statement(files: dict[str, str]) -> dict[str, Any]:
    """What is signed, as model-signing 1.1 writes it."""
    ordered = sorted(files.items())
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "bundle", "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in ordered],
        },
    }


def hashes_of(bundle: Path) -> dict[str, str]:
    """Of every file but the signature."""
    files = (path for path in bundle.rglob("*") if path.is_file() and path.name != "model.sig")
    return {path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def envelope(payload: bytes, key: TestKey) -> dict[str, Any]:
    """The whole of a signature's file."""
    kind = "application/vnd.in-toto+json"
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signature = key.private.sign(message, ec.ECDSA(_HASHES[key.private.curve.key_size]))
    material: dict[str, Any] = {"publicKey": {"hint": hashlib.sha256(key.pem.encode()).hexdigest()}}
    if key.chain:
        certificates = [{"rawBytes": _base64(own.public_bytes(Encoding.DER))} for own in key.chain]
        material = {"x509CertificateChain": {"certificates": certificates}}
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material | {"tlogEntries": []},
        "dsseEnvelope": {
            "payload": _base64(payload),
            "payloadType": kind,
            "signatures": [{"sig": _base64(signature), "keyid": ""}],
        },
    }


def sign(bundle: Path, key: TestKey, files: dict[str, str] | None = None) -> None:
    """Put a signature of its files, or of others, into a bundle."""
    payload = json.dumps(statement(hashes_of(bundle) if files is None else files)).encode()
    (bundle / "model.sig").write_text(json.dumps(envelope(payload, key)), encoding="utf-8")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
