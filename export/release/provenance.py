"""Where a bundle comes from: an in-toto statement with SLSA's provenance, https://slsa.dev/spec/v1.0/provenance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dualtune_edge.export.adapter.config import CONFIG
from dualtune_edge.export.adapter.tensors import WEIGHTS
from dualtune_edge.export.base.tokenizer import small_files
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.release.subject import Subject
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.strict_json import Json

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD: Final = "urn:dualtune-edge:export:v1"
_CONTENT: Final = "dualtuneContentSha256"  # of tensors and config, however they are filed: docs/bundle-format.md


def provenance(subject: Subject, spec: Path | None, builder: str | None) -> Json:
    """The statement, the same for the same bundle.

    Args:
        subject: the bundle; every file of it is a subject of the statement.
        spec: the spec that it was exported from. Its files are read and compared with the bundle, and listed by their
            hashes; without it base and adapters are listed by what the manifest says of their content.
        builder: the URI of the platform that ran the export; by default that of this package.

    Raises:
        EdgeError: the spec cannot be read.
        SpecError: the bundle is not of it.

    """
    manifest = subject.bundle.manifest
    ours = f"pkg:pypi/dualtune-edge@{manifest.versions.get('dualtune-edge', '')}"
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": path, "digest": {"sha256": sha256}} for path, sha256 in sorted(subject.bundle.hashes.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": _parameters(manifest),
                "resolvedDependencies": [*_contents(manifest), *(_sources(subject, spec) if spec else ())],
            },
            "runDetails": {
                "builder": {"id": builder or ours, "version": dict(sorted(manifest.versions.items()))},
                **({"metadata": {"finishedOn": subject.moment}} if subject.moment else {}),
            },
        },
    }


def _parameters(manifest: Manifest) -> Json:
    """What the manifest has of the spec."""
    return {
        **({"release": manifest.release.model_dump(mode="json")} if manifest.release else {}),
        "quantization": manifest.quantization.model_dump(mode="json"),
        "profiles": [variant.profile for variant in manifest.variants]
        or ([manifest.profile] if manifest.profile else []),
        "modes": {adapter.name: adapter.mode for adapter in manifest.adapters},
        "toolsets": [entry.toolset.name for entry in manifest.toolsets],
        "noTool": manifest.no_tool,
    }


def _contents(manifest: Manifest) -> Iterator[Json]:
    yield {"name": f"base {manifest.base.name}", "digest": {_CONTENT: manifest.base.fingerprint}}
    for adapter in manifest.adapters:
        yield {"name": f"adapter {adapter.name}", "digest": {_CONTENT: adapter.sha256}}


def _sources(subject: Subject, path: Path) -> Iterator[Json]:
    """The files that the spec names, once it is known that the bundle was made of them."""
    spec = read_spec(path)
    inputs = read_inputs(spec)
    for fault in _faults(subject.bundle.manifest, inputs):
        raise SpecError(
            str(path),
            found=f"{fault}, which the bundle was not made of",
            expected="the spec that it was exported from, with its files as they were",
            fix="Name that spec, or leave out --spec.",
        )
    for name, file in sorted({*_files(spec, inputs), (path.name, path)}):
        yield {"name": name, "digest": {"sha256": sha256_file(file)}}


def _faults(manifest: Manifest, inputs: Inputs) -> Iterator[str]:
    if inputs.checkpoint.fingerprint != manifest.base.fingerprint:
        yield f"the base {inputs.checkpoint.folder}"
    if inputs.checkpoint.tokenizer_sha256 != manifest.tokenizer.fingerprint:
        yield "the tokenizer"
    bundled = {adapter.name: adapter.sha256 for adapter in manifest.adapters}
    for adapter in inputs.adapters:
        if bundled.pop(adapter.name, None) != adapter.sha256:
            yield f"the adapter {adapter.name}"
    if bundled:
        yield f"a spec without the adapter {min(bundled)}"
    if [source.toolset for source in inputs.toolsets] != [entry.toolset for entry in manifest.toolsets]:
        yield "its tools"
    if inputs.release != manifest.release:
        yield f"{inputs.release or 'no release'}"


def _files(spec: ExportSpec, inputs: Inputs) -> Iterator[tuple[str, Path]]:
    base = inputs.checkpoint
    for path in {*(tensor.path for tensor in base.stored.values()), *small_files(base.folder)}:
        yield f"base/{path.name}", path
    for adapter in inputs.adapters:
        for name in (CONFIG, WEIGHTS):
            yield f"{adapter.name}/{name}", adapter.folder / name
    for toolset in spec.toolsets:
        yield f"{toolset.name}/{toolset.tools.name}", toolset.tools
