"""What a signature says: the hash of each file, as OpenSSF Model Signing 1.0 writes it into an in-toto statement."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.validation import expectation

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_Model = TypeVar("_Model", bound=BaseModel)
_Hex: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StatementError(ValueError):
    """What is wrong with the statement or its envelope."""


class Open(BaseModel):
    """A frozen value that ignores unknown keys, as the format asks of those who verify."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Digest(Open):
    sha256: _Hex


class _Subject(Open):
    digest: _Digest


class _Serialization(Open):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Resource(Open):
    name: str
    algorithm: Literal["sha256"]
    digest: _Hex


class _Predicate(Open):
    serialization: _Serialization
    resources: list[_Resource]


class _Statement(Open):
    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: list[_Subject]
    predicate_type: Annotated[Literal["https://model_signing/signature/v1.0"], Field(alias="predicateType")]
    predicate: _Predicate


@dataclass(frozen=True)
class SignedFiles:
    """The SHA-256 of each file that was signed, by its path; and who signed."""

    signer: str  # the name that the policy gives
    hashes: Mapping[str, str]


def read_statement(payload: bytes) -> dict[str, str]:
    """Path → SHA-256 of every file that a statement lists.

    Raises:
        StatementError: it is no such statement, or does not agree with itself.

    """
    statement = parse(_Statement, payload)
    resources = statement.predicate.resources
    hashes = {resource.name: resource.digest for resource in resources}
    if len(hashes) < len(resources):
        raise StatementError("a file twice")
    whole = hashlib.sha256(b"".join(bytes.fromhex(resource.digest) for resource in resources)).hexdigest()
    if [subject.digest.sha256 for subject in statement.subject] != [whole]:
        raise StatementError("a subject that is not the hash of its files")
    return hashes


def parse(model: type[_Model], text: bytes) -> _Model:
    """JSON as a model.

    Raises:
        StatementError: it is not.

    """
    try:
        value: Any = strict_json.loads(text)
        return model.model_validate(value)
    except strict_json.JsonError as error:
        raise StatementError(str(error)) from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise StatementError(
            f"{'.'.join(map(str, fault['loc'])) or 'no object'}: expected {expectation(fault)}"
        ) from None
