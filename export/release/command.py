"""`dualtune-edge sign`, `verify`, `describe`, `pack` and `diff`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from dualtune_edge.export.qnn.command import simulate
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.runtime.options import BundleFolder, TrustFile
from dualtune_edge.runtime.trust.policy import TRUST_VARIABLE, read_trust
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SIGNATURE
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.frozen import Frozen

PASSWORD_VARIABLE: Final = "DUALTUNE_EDGE_KEY_PASSWORD"  # noqa: S105 - a name


class PackReport(Frozen):
    """What `pack --json` prints. `digest`: of the image's manifest, by which registries know the pack."""

    pack: str
    digest: str
    manifest_sha256: str
    files: int
    signed: bool


class DocumentsReport(Frozen):
    """What `describe --json` prints. `unknown_licences`: names of the parts whose licence nobody said.

    It is null for a bundle from before licences were recorded.
    """

    folder: str
    files: tuple[str, ...]
    manifest_sha256: str
    unknown_licences: tuple[str, ...] | None


class SignatureReport(Frozen):
    """What `sign --json` and `verify --signature … --json` print. `signer`: the policy's name for whoever signed."""

    signature: str
    manifest_sha256: str
    files: int
    signer: str | None = None


def sign(
    bundle: BundleFolder,
    *,
    key: Annotated[
        str, typer.Option(metavar="KEY", help="The private key: a PEM file, or a PKCS#11 URI (pkcs11:…) of a token.")
    ],
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="The key's certificate, as PEM.")] = None,
    chain: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A certificate above it, as PEM; several times.")
    ] = None,
    module_path: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of PKCS#11 libraries; several times.")
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Write the signature here; default: BUNDLE/{SIGNATURE}.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Sign a bundle, in the format of OpenSSF Model Signing.

    Every file is hashed first. The signature covers all of them; whatever changes the bundle later (`verify --profile`
    puts a report into it) must come before. The password of an encrypted key is read from DUALTUNE_EDGE_KEY_PASSWORD.

    Example:
        dualtune-edge sign my-bundle --key release.pem

    """
    from dualtune_edge.export.release.sign import SigningKey, sign_bundle

    signer = SigningKey(
        key, certificate, tuple(chain or ()), os.environ.get(PASSWORD_VARIABLE) or None, tuple(module_path or ())
    )
    signed = sign_bundle(bundle, signer, signature)
    target = signature or bundle / SIGNATURE
    digest = signed.hashes[MANIFEST]
    report = SignatureReport(signature=str(target), manifest_sha256=digest, files=len(signed.hashes))
    console.result(report, f"{target}: {report.files} files, {MANIFEST} {digest}", as_json=as_json)


def verify(
    bundle: BundleFolder,
    *,
    signature: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Verify this signature; default: BUNDLE/{SIGNATURE}.")
    ] = None,
    trust: TrustFile = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Simulate this variant instead: one for an NPU.")
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Conversations with right answers: JSON lines, as for fine-tuning."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="The most prompts made from the tools, and the most turns of conversations.")
    ] = 12,
    as_json: console.AsJson = False,
) -> None:
    """Verify a bundle's signature; or simulate the NPU.

    With --trust, or the file that DUALTUNE_EDGE_TRUST names: whether the signature is by a key that the policy trusts,
    and every file as it was signed.

    With --profile: the variant's graphs are compiled for its SoC and run in the simulation that comes with the
    compiler (Linux on x86-64, package onnxruntime-qnn). A forward takes seconds; a choice is two or three of them,
    arguments ten to thirty. After Ctrl-C the report is of the prompts simulated so far. The same prompts go to the same
    graphs on the CPU provider, and to the bundle's primary model. The report is put into the bundle too, where
    `inspect` shows it.

    Example:
        dualtune-edge verify my-bundle --trust trust.toml
        dualtune-edge verify my-bundle --profile qnn-x-elite --heldout heldout.jsonl --limit 20

    """
    if profile is not None:
        if signature or trust:
            raise SpecError(
                "verify", found="a signature and --profile", expected="one of them", fix="Run it once for each."
            )
        simulate(bundle, profile, heldout=heldout, limit=limit, as_json=as_json)
        return
    policy = read_trust(trust)
    if policy is None:
        raise SpecError(
            "verify",
            found="no trust policy and no --profile",
            expected=f"--trust FILE, or {TRUST_VARIABLE}, for a signature; --profile NAME for a simulation",
            fix="Add one of them.",
        )
    opened = open_signed(bundle, policy, signature=signature)
    where, digest = str(signature or bundle / SIGNATURE), opened.hashes[MANIFEST]
    report = SignatureReport(signature=where, manifest_sha256=digest, files=len(opened.hashes), signer=opened.signer)
    console.result(report, f"signed by {opened.signer}: {report.files} files, {MANIFEST} {digest}", as_json=as_json)


def describe(
    bundle: BundleFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where nothing is yet.")],
    *,
    spec: Annotated[
        Path | None,
        typer.Option(metavar="SPEC.yaml", help="What it was exported from, to list its files."),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `evaluate --json` printed of this bundle.")
    ] = None,
    builder: Annotated[str | None, typer.Option(metavar="URI", help="The platform that ran the export.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Write a release's SBOM, provenance and model card.

    They are a CycloneDX 1.6 document, an in-toto statement with SLSA's provenance, and a README.md for the hub; all of
    them name the bundle's manifest by its hash. A bundle gives the same bytes each time; times are written where
    SOURCE_DATE_EPOCH says one. `pack --documents DIR` attaches them.

    Example:
        dualtune-edge describe my-bundle -o documents --spec dualtune.yaml --evaluation evaluation.json

    """
    from dualtune_edge.export.release.documents import TYPES, describe_bundle

    described = describe_bundle(bundle, output, spec=spec, evaluation=evaluation, builder=builder)
    licences = described.licences
    report = DocumentsReport(
        folder=str(output),
        files=tuple(TYPES),
        manifest_sha256=described.hashes[MANIFEST],
        unknown_licences=licences.unknown if licences else None,
    )
    if licences is None or licences.unknown:
        console.warn(f"licences: {licences.line() if licences else 'not recorded in this bundle'}")
    console.result(report, f"{output}: {', '.join(report.files)} of {report.manifest_sha256}", as_json=as_json)


def pack(
    bundle: BundleFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PACK", help="Where nothing is yet.")],
    *,
    layout: Annotated[
        bool, typer.Option("--layout", help="Write the image layout's folder, as registry tools read it.")
    ] = False,
    documents: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Attach what `describe` wrote of the bundle.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Pack a bundle into one file, to be installed.

    The file is a tar of an OCI image layout with a blob for each file of the bundle. A bundle gives the same bytes each
    time. Sign it first: the signature goes with it. Documents become images of their own that refer to it.

    Example:
        dualtune-edge pack my-bundle -o helper-7.tar

    """
    from dualtune_edge.export.release.pack import pack_bundle

    packed = pack_bundle(bundle, output, layout=layout, documents=documents)
    hashes = packed.bundle.hashes
    if not packed.signed:
        console.warn("the bundle is not signed")
    report = PackReport(
        pack=str(output),
        digest=packed.digest,
        manifest_sha256=hashes[MANIFEST],
        files=len(hashes) + packed.signed,
        signed=packed.signed,
    )
    what = packed.bundle.manifest.release or "no release"
    console.result(report, f"{output}: {what}, {report.files} files, {packed.digest}", as_json=as_json)


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A bundle's folder, a pack or a store.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
    *,
    as_json: console.AsJson = False,
) -> None:
    """Tell what an update costs.

    Files are compared by their hashes. What NEW has in common with OLD is neither sent nor stored twice.

    Example:
        dualtune-edge diff helper-6.tar helper-7.tar

    """
    from dualtune_edge.export.release.difference import difference

    found = difference(old, new)
    rows = [(file.what, f"{file.bytes:,}", f"{file.moved:,}", file.path) for file in found.files]
    table = console.table_lines(("", "bytes", "moved", "path"), rows, left={"", "path"})
    share = found.moved / found.bytes
    last = (
        f"{found.moved / 1e6:,.2f} of {found.bytes / 1e6:,.2f} MB move ({share:.1%}); {found.same} files are the same"
    )
    console.result(found, "\n".join((*(table if rows else ()), last)), as_json=as_json)
