"""A bundle's signature: a Sigstore bundle with a DSSE envelope, as OpenSSF Model Signing 1.0 writes it.

Nothing but the signature's file is parsed before it is known to be of someone whom the policy trusts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from dualtune_edge.runtime.trust.keys import Key, UntrustedKeyError, certified_key, trusted_key
from dualtune_edge.runtime.trust.policy import TrustedKey, TrustedRoot, TrustPolicy
from dualtune_edge.runtime.trust.statement import PAYLOAD_TYPE, Open, SignedFiles, StatementError, parse, read_statement
from dualtune_edge.toolkit.errors import TrustError

_LONGEST_CHAIN: Final = 8  # certificates


class _Key(Open):
    hint: str


class _Certificate(Open):
    der: Annotated[str, Field(alias="rawBytes")]


class _Chain(Open):
    certificates: Annotated[list[_Certificate], Field(min_length=1, max_length=_LONGEST_CHAIN)]


class _Material(Open):
    public_key: Annotated[_Key | None, Field(alias="publicKey")] = None
    chain: Annotated[_Chain | None, Field(alias="x509CertificateChain")] = None
    identity: Annotated[object, Field(alias="certificate")] = None


class _Signature(Open):
    sig: str


class _Envelope(Open):
    payload: str
    payload_type: Annotated[Literal["application/vnd.in-toto+json"], Field(alias="payloadType")]
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=1)]


class _SigstoreBundle(Open):
    media_type: Annotated[Literal["application/vnd.dev.sigstore.bundle.v0.3+json"], Field(alias="mediaType")]
    material: Annotated[_Material, Field(alias="verificationMaterial")]
    envelope: Annotated[_Envelope, Field(alias="dsseEnvelope")]


def verify(data: bytes, policy: TrustPolicy, where: str, now: datetime) -> SignedFiles:
    """What a signature covers, if the policy trusts whoever made it.

    Args:
        data: the signature's file.
        policy: whom the device trusts.
        where: the name of the file, for errors.
        now: the moment at which keys and certificates must be valid.

    Raises:
        TrustError: the signature is malformed, of someone else, or of someone who does not count any more or yet.

    """
    try:
        bundle = parse(_SigstoreBundle, data)
        payload = _bytes(bundle.envelope.payload)
        signature = _bytes(bundle.envelope.signatures[0].sig)
        key = _key(bundle.material, policy, now)
        key.check(_pre_authentication(payload), signature)
        return SignedFiles(key.name, read_statement(payload))
    except (StatementError, UntrustedKeyError) as error:
        raise TrustError(
            where, found=str(error), expected=_expected(policy), fix="Take a bundle from where it is signed."
        ) from None


def unverified(data: bytes) -> dict[str, str]:
    """Path → SHA-256 of the files that a signature covers, whoever made it.

    Raises:
        StatementError: the signature is malformed.

    """
    return read_statement(_bytes(parse(_SigstoreBundle, data).envelope.payload))


def _key(material: _Material, policy: TrustPolicy, now: datetime) -> Key:
    """The key that the signature names, if it counts now."""
    candidates = [(trusted, key) for trusted, key in _candidates(material, policy, now)]
    if not candidates:
        raise UntrustedKeyError("a signature by a key that the policy does not have")
    for _, key in candidates:
        if revoked := sorted(set(key.fingerprints) & set(policy.revoked_keys)):
            raise UntrustedKeyError(f"a signature by {key.name!r}, whose key {revoked[0]} is revoked")
    outdated = [_outdated(trusted, now) for trusted, _ in candidates]
    if all(outdated):
        raise UntrustedKeyError(outdated[0])
    return candidates[outdated.index("")][1]


def _candidates(
    material: _Material, policy: TrustPolicy, now: datetime
) -> Iterator[tuple[TrustedKey | TrustedRoot, Key]]:
    if material.public_key:
        for trusted in policy.keys:
            key = trusted_key(trusted)
            if key.hint == material.public_key.hint:
                yield trusted, key
    elif material.chain:
        chain = [_bytes(certificate.der) for certificate in material.chain.certificates]
        fault = UntrustedKeyError("a signature by a certificate, where the policy has no root")
        found = False
        for root in policy.roots:
            try:
                key = certified_key(root, chain, now)
            except UntrustedKeyError as error:
                fault = error
            else:
                found = True
                yield root, key
        if not found:
            raise fault
    elif material.identity is not None:
        raise UntrustedKeyError("a signature by an identity of Sigstore, which takes a network to verify")
    else:
        raise UntrustedKeyError("a signature that names no key")


def _outdated(trusted: TrustedKey | TrustedRoot, now: datetime) -> str:
    """Why a signature by it does not count at this moment; empty: it does."""
    if trusted.not_before and now < trusted.not_before:
        return f"a signature by {trusted.name!r}, which counts from {trusted.not_before} only; it is {now} here"
    if trusted.expires and now >= trusted.expires:
        return f"a signature by {trusted.name!r}, which expired {trusted.expires}; it is {now} here"
    return ""


def _expected(policy: TrustPolicy) -> str:
    names = [signatory.name for signatory in (*policy.keys, *policy.roots)]
    return f"a signature by {' or '.join(map(repr, names))}" if names else "a key or a root in the policy"


def _pre_authentication(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise StatementError("a text that is not base64") from None
