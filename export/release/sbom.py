"""The bill of materials of a bundle, as CycloneDX 1.6: base, adapters, tokenizer, every file, and what built them.

https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Final

from dualtune_edge.export.release.subject import Subject
from dualtune_edge.runtime.evaluate.text import rows
from dualtune_edge.toolkit.bundle.adapters import AdapterEntry
from dualtune_edge.toolkit.bundle.layout import MODEL_DIR
from dualtune_edge.toolkit.bundle.licences import BASE_PART, PartLicence
from dualtune_edge.toolkit.bundle.manifest import FileEntry
from dualtune_edge.toolkit.strict_json import Json

_ROOT: Final = "bundle"
_TOKENIZER: Final = "tokenizer"
_TOKENIZER_FILE: Final = f"{MODEL_DIR}/tokenizer.json"
_TOOL: Final = "dualtune-edge"
_NAMESPACE: Final = uuid.UUID(int=0)
_Object = dict[str, Json]


def bill_of_materials(subject: Subject) -> Json:
    """The document, the same for the same bundle."""
    manifest = subject.bundle.manifest
    adapters = [_adapter(subject, adapter) for adapter in manifest.adapters]
    document: _Object = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, subject.manifest_sha256)}",
        "version": 1,
        "metadata": {
            **({"timestamp": subject.moment} if subject.moment else {}),
            "tools": {"components": [_package(_TOOL, manifest.versions.get(_TOOL, ""))]},
            "component": _bundle(subject),
        },
        "components": [
            _base(subject),
            *adapters,
            _tokenizer(subject),
            *(_package(name, version, scope="excluded") for name, version in sorted(manifest.versions.items())),
        ],
        "dependencies": [
            _dependency(_ROOT, [BASE_PART, _TOKENIZER, *(_reference(adapter) for adapter in manifest.adapters)]),
            *(_dependency(_reference(adapter), [BASE_PART]) for adapter in manifest.adapters),
        ],
    }
    return document


def _bundle(subject: Subject) -> _Object:
    """The whole, with the files that are of no single part."""
    manifest = subject.bundle.manifest
    elsewhere = {file.path for adapter in manifest.adapters for file in subject.files_of(adapter)}
    elsewhere |= {file.path for file in subject.files_below(MODEL_DIR)}
    rest = (file for file in manifest.files if file.path not in elsewhere)
    licences, metrics = subject.licences, [*_metrics(subject)]
    return {
        "type": "machine-learning-model",
        "bom-ref": _ROOT,
        "name": subject.name,
        **({"version": subject.version} if subject.version else {}),
        **({"licenses": _expression(licences.expression)} if licences and not licences.unknown else {}),
        "hashes": [_sha256(subject.manifest_sha256)],
        "modelCard": {
            "modelParameters": {"task": manifest.base.task, "modelArchitecture": manifest.base.architecture},
            **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        },
        "properties": [_property("manifest.sha256", subject.manifest_sha256)],
        "components": [*map(_file, rest)],
    }


def _base(subject: Subject) -> _Object:
    manifest = subject.bundle.manifest
    base = manifest.base
    return {
        "type": "machine-learning-model",
        "bom-ref": BASE_PART,
        "name": base.name,
        **_licence(subject.licence(BASE_PART)),
        "modelCard": {"modelParameters": {"task": base.task, "modelArchitecture": base.architecture}},
        "properties": [
            _property("base.fingerprint", base.fingerprint),
            _property("quantization", manifest.quantization.line(manifest.cache.layers)),
        ],
        "components": [*map(_file, (file for file in subject.files_below(MODEL_DIR) if file.path != _TOKENIZER_FILE))],
    }


def _adapter(subject: Subject, adapter: AdapterEntry) -> _Object:
    return {
        "type": "machine-learning-model",
        "bom-ref": _reference(adapter),
        "name": adapter.name,
        **_licence(subject.licence(adapter.name)),
        "properties": [
            _property("adapter.sha256", adapter.sha256),
            _property("adapter.mode", adapter.mode),
            _property("adapter.rank", str(adapter.rank)),
        ],
        "components": [*map(_file, subject.files_of(adapter))],
    }


def _tokenizer(subject: Subject) -> _Object:
    return {
        "type": "data",
        "bom-ref": _TOKENIZER,
        "name": f"{subject.bundle.manifest.base.name} tokenizer",
        **_licence(subject.licence(BASE_PART)),
        "hashes": [_sha256(subject.bundle.manifest.tokenizer.fingerprint)],
        "components": [*map(_file, subject.files_below(_TOKENIZER_FILE))],
    }


def _package(name: str, version: str, scope: str | None = None) -> _Object:
    """A Python package; what is `excluded` built the bundle, and is not in it."""
    return {
        "type": "library",
        "bom-ref": f"{'built by ' if scope else ''}pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        **({"scope": scope} if scope else {}),
        "purl": f"pkg:pypi/{name.lower()}@{version}",
    }


def _file(file: FileEntry) -> _Object:
    return {"type": "file", "name": file.path, "hashes": [_sha256(file.sha256)]}


def _metrics(subject: Subject) -> Iterator[Json]:
    """Shares with their 95% intervals; and how far the quantized graphs are from PEFT."""
    if subject.evaluation:
        for name, share, _ in rows(subject.evaluation):
            yield {
                "type": name,
                "value": f"{share.share:.4f}",
                "slice": subject.evaluation.data,
                "confidenceInterval": {"lowerBound": f"{share.low:.4f}", "upperBound": f"{share.high:.4f}"},
            }
    parity = subject.bundle.parity
    if parity and parity.stages:
        worst = max(stage.mean_kl for stage in parity.stages)
        yield {"type": "mean KL divergence from PEFT in float32, worst stage (nats)", "value": f"{worst:.4f}"}


def _licence(part: PartLicence | None) -> _Object:
    if part is None or part.licence is None:
        return {}
    links = [*part.texts, *([part.link] if part.link else [])]
    return {
        "licenses": _expression(part.licence),
        **({"externalReferences": [{"type": "license", "url": link} for link in links]} if links else {}),
    }


def _expression(expression: str) -> Json:
    return [{"expression": expression, "acknowledgement": "declared"}]


def _dependency(reference: str, on: Iterable[str]) -> Json:
    return {"ref": reference, "dependsOn": [*sorted(set(on))]}


def _reference(adapter: AdapterEntry) -> str:
    return f"adapter {adapter.name}"


def _property(name: str, value: str) -> Json:
    return {"name": f"dualtune-edge:{name}", "value": value}


def _sha256(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest}
