"""The trust policy: whose signatures a device accepts, and which of their bundles it refuses. docs/signing.md."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AwareDatetime, Field, model_validator

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import TrustError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import validate

TRUST_VARIABLE: Final = "DUALTUNE_EDGE_TRUST"
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARS)]


class _Signatory(Frozen):
    """Whoever may sign, and when: a signature counts from `not_before` until `expires`, by the device's clock."""

    name: Name
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.not_before and self.expires and self.not_before >= self.expires:
            raise ValueError("`not_before` that is earlier than `expires`")
        return self


class TrustedKey(_Signatory):
    """A public key, as PEM: on the curve P-256, P-384 or P-521."""

    public_key: str


class TrustedRoot(_Signatory):
    """The certificate of an authority, as PEM. Keys to which it leads by a chain of certificates may sign."""

    certificate: str


class TrustPolicy(Frozen):
    """The whole of a trust file. `required`: a bundle without a signature is refused.

    A revoked key is named by the SHA-256 of its DER (SubjectPublicKeyInfo), a revoked bundle by that of its
    manifest.json. `minimum_versions`: of a product, the lowest version that is opened; where there are any, bundles
    without a product and a version are refused.
    """

    format: Literal["dualtune-edge-trust"]
    version: Literal[1]
    required: Annotated[bool, Field(strict=True)] = True
    keys: tuple[TrustedKey, ...] = ()
    roots: tuple[TrustedRoot, ...] = ()
    revoked_keys: tuple[Sha256, ...] = ()
    revoked_bundles: tuple[Sha256, ...] = ()
    minimum_versions: dict[str, Annotated[int, Field(ge=1, strict=True)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        names = [signatory.name for signatory in (*self.keys, *self.roots)]
        if len(set(names)) < len(names):
            raise ValueError("a different name for each of `keys` and `roots`")
        if self.required and not names:
            raise ValueError("a key or a root where signatures are required")
        return self


Trust: TypeAlias = TrustPolicy | Path | str


def read_trust(trust: Trust | None) -> TrustPolicy | None:
    """The policy, or that in a file; of None, that in the file which $DUALTUNE_EDGE_TRUST names. None: there is none.

    Raises:
        TrustError: the file cannot be read, or is no trust policy.

    """
    if isinstance(trust, TrustPolicy):
        return trust
    if trust is None:
        trust = os.environ.get(TRUST_VARIABLE) or None
    try:
        return None if trust is None else _read(Path(trust))
    except TypeError:
        found = f"{type(trust).__name__} {trust!r:.80}"
        raise TrustError("trust", found=found, expected="a policy, or its file", fix="Pass a text or a Path.") from None


def _read(path: Path) -> TrustPolicy:
    expected = "a trust policy: a TOML file"
    try:
        with path.open("rb") as file:
            data = file.read(limits.PROFILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise TrustError(str(path), found=str(error), expected=expected, fix="Check the path.") from None
    if len(data) > limits.PROFILE_BYTES:
        raise TrustError(
            str(path), found=f"over {limits.PROFILE_BYTES} bytes", expected=expected, fix="Check the path."
        )
    try:
        value = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrustError(str(path), found=str(error), expected=expected, fix="Correct it: docs/signing.md.") from None
    return validate(TrustPolicy, value, where=str(path), error=TrustError)
