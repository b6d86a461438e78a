"""A release's documents: valid by the schemas of others, about every part, and about no other bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from export_desk import Desk, Exported
from google.protobuf import json_format
from huggingface_hub import ModelCard
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from releases import release
from signatures import TestKey, policy, sign
from tiny_bundle import change_manifest, reseal

from dualtune_edge import cli
from dualtune_edge.export.release.documents import CARD, PROVENANCE, SBOM, TYPES, describe_bundle, read_documents
from dualtune_edge.export.release.pack import pack_bundle
from dualtune_edge.runtime.bundle.opening import open_bundle, open_signed
from dualtune_edge.runtime.evaluate.report import Evaluation, Scores, Side
from dualtune_edge.runtime.evaluate.statistics import Share
from dualtune_edge.runtime.store.install import install
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.bundle.manifest import Release
from dualtune_edge.toolkit.errors import BundleError, SpecError
from dualtune_edge.toolkit.files import sha256_file

SEVEN = Release(product="helper", version=7)


def describe(bundle: Path, target: Path, **given: Any) -> dict[str, bytes]:
    describe_bundle(bundle, target, **({"spec": None, "evaluation": None, "builder": None} | given))
    return {path.name: path.read_bytes() for path in target.iterdir()}


def evaluation(path: Path, manifest_sha256: str | None) -> Path:
    share = Share.count([True, True, False])
    scores = Scores(
        answers=share,
        toolsets=share,
        tools=share,
        calls=share,
        routed_calls=share,
        abstentions=Share.count([]),
        needed=share,
    )
    ours = Side(
        name="bundle",
        manifest_sha256=manifest_sha256,
        scores=scores,
        properties=(),
        confusions=(),
        calibration=None,
        curve=(),
        mistakes=(),
    )
    found = Evaluation(data="held|out.jsonl", turns=3, ours=ours, against=None)
    path.write_text(found.model_dump_json(), encoding="utf-8")
    return path


def manifest_sha256(bundle: Path) -> str:
    return sha256_file(bundle / MANIFEST)


@pytest.fixture
def described(mixed: Exported, tmp_path: Path) -> dict[str, bytes]:
    found = evaluation(tmp_path / "evaluation.json", manifest_sha256(mixed.bundle))
    spec = mixed.desk.folder / "mixed.yaml"
    return describe(mixed.bundle, tmp_path / "documents", spec=spec, evaluation=found, builder="https://example.org/ci")


def test_the_bill_of_materials_is_valid_cyclonedx(described: dict[str, bytes]) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(described[SBOM].decode()) is None


def test_it_lists_every_part_and_every_file_once(mixed: Exported, described: dict[str, bytes]) -> None:
    document = json.loads(described[SBOM])
    models = {part["bom-ref"]: part for part in document["components"] if part["type"] == "machine-learning-model"}
    assert set(models) == {"base", *(f"adapter {adapter.name}" for adapter in mixed.manifest.adapters)}
    assert models["base"]["licenses"][0]["expression"] == "Apache-2.0"
    assert models["base"]["externalReferences"][0]["url"] in {file.path for file in mixed.manifest.files}
    assert "licenses" not in models["adapter arguments.files.read"]  # nobody said
    files: dict[str, str] = {}
    for part in (document["metadata"]["component"], *document["components"]):
        for file in part.get("components", ()):
            files[file["name"]] = file["hashes"][0]["content"]
    assert files == {file.path: file.sha256 for file in mixed.manifest.files}
    packages = {part["name"] for part in document["components"] if part["type"] == "library"}
    assert packages == set(mixed.manifest.versions)
    references = {part["bom-ref"] for part in (document["metadata"]["component"], *document["components"])}
    assert {dependency["ref"] for dependency in document["dependencies"]} <= references


def test_its_figures_are_those_of_the_evaluation(described: dict[str, bytes]) -> None:
    card = json.loads(described[SBOM])["metadata"]["component"]["modelCard"]
    metrics = {metric["type"]: metric for metric in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["whole call"]["value"] == "0.6667"
    assert metrics["whole call"]["confidenceInterval"]["lowerBound"] < "0.6667"
    assert any("KL" in name for name in metrics)


def test_the_provenance_is_a_statement_of_in_toto(mixed: Exported, described: dict[str, bytes]) -> None:
    value = json.loads(described[PROVENANCE])
    Statement.copy_from_pb(json_format.ParseDict(value, statement_pb2.Statement())).validate()
    json_format.ParseDict(value["predicate"], provenance_pb2.Provenance())
    assert value["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in value["subject"]}
    assert subjects == open_signed(mixed.bundle, None).hashes
    assert value["predicate"]["runDetails"]["builder"]["id"] == "https://example.org/ci"


def test_it_lists_the_files_that_the_bundle_was_made_of(mixed: Exported, described: dict[str, bytes]) -> None:
    value = json.loads(described[PROVENANCE])["predicate"]["buildDefinition"]
    sources = {source["name"]: source["digest"] for source in value["resolvedDependencies"]}
    desk = mixed.desk.folder
    for name, path in {
        "mixed.yaml": "mixed.yaml",
        "base/model.safetensors": "base/model.safetensors",
        "selection.files/adapter_config.json": "chooser/adapter_config.json",
        "arguments.files.read/adapter_model.safetensors": "writers/read/adapter_model.safetensors",
        "git/git.json": "git.json",
    }.items():
        assert sources[name] == {"sha256": sha256_file(desk / path)}
    assert sources["base base"] == {"dualtuneContentSha256": mixed.manifest.base.fingerprint}


def _other_adapter(desk: Desk) -> None:
    shutil.copytree(desk.folder / "writers" / "read", desk.folder / "writers" / "write", dirs_exist_ok=True)


def _other_base(desk: Desk) -> None:
    desk.rewrite("base/config.json", lambda config: config.update(rms_norm_eps=2e-6))


def _other_tools(desk: Desk) -> None:
    desk.rewrite("git.json", lambda tools: tools["tools"][0].update(description="Another one"))


def _other_release(desk: Desk) -> None:
    path = desk.folder / "mixed.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("version: 3", "version: 4"), encoding="utf-8")


def _no_adapter(desk: Desk) -> None:
    path = desk.folder / "mixed.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("    arguments: writers\n", ""), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_other_adapter, "arguments.files.write"),
        (_other_base, "base"),
        (_other_tools, "tools"),
        (_other_release, "desk 4"),
        (_no_adapter, "without the adapter"),
    ],
)
def test_sources_that_it_was_not_made_of_are_refused(
    mixed: Exported, own_desk: Desk, tmp_path: Path, change: Callable[[Desk], None], word: str
) -> None:
    change(own_desk)
    with pytest.raises(SpecError, match=word):
        describe(mixed.bundle, tmp_path / "documents", spec=own_desk.folder / "mixed.yaml")
    assert not (tmp_path / "documents").exists()


def test_the_card_is_one_of_the_hub(described: dict[str, bytes]) -> None:
    card = ModelCard(described[CARD].decode())
    assert card.data.license == "other"  # three licences, one of them unknown
    assert card.data.eval_results
    assert {result.metric_name: result.metric_value for result in card.data.eval_results}["tool"] == 0.6667
    assert "| whole call | 2 of 3 | 66.7% |" in card.text
    assert "## Compared with PEFT" in card.text
    assert "No licence is known of: arguments.files.read, arguments.files.write." in card.text


def test_a_single_licence_of_spdx_is_named_as_the_hub_does(mixed: Exported, tmp_path: Path) -> None:
    bundle = shutil.copytree(mixed.bundle, tmp_path / "bundle")
    licences = json.loads((bundle / "licences.json").read_bytes())
    for part in licences["parts"]:
        part["licence"] = "Apache-2.0"
    (bundle / "licences.json").write_text(json.dumps(licences), encoding="utf-8")
    reseal(bundle)
    head = describe(bundle, tmp_path / "documents")[CARD].decode().split("---")[1]
    assert yaml.safe_load(head)["license"] == "apache-2.0"


def test_the_same_bytes_each_time_and_no_times(mixed: Exported, tmp_path: Path) -> None:
    again = shutil.copytree(mixed.bundle, tmp_path / "elsewhere" / "again")
    one, other = describe(mixed.bundle, tmp_path / "one"), describe(again, tmp_path / "other")
    assert one == other
    assert b"finishedOn" not in one[PROVENANCE]
    assert b"timestamp" not in one[SBOM]


def test_a_moment_is_written_where_one_is_given(
    mixed: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    found = describe(mixed.bundle, tmp_path / "documents")
    assert json.loads(found[SBOM])["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"
    assert b'"finishedOn": "2026-01-01T00:00:00Z"' in found[PROVENANCE]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(found[SBOM].decode()) is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(SpecError, match="SOURCE_DATE_EPOCH"):
        describe(mixed.bundle, tmp_path / "others")


@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_an_evaluation_of_another_bundle_is_refused(mixed: Exported, tmp_path: Path, digest: str | None) -> None:
    with pytest.raises(SpecError, match="evaluation"):
        describe(mixed.bundle, tmp_path / "documents", evaluation=evaluation(tmp_path / "e.json", digest))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"data": 5}'])
def test_what_is_no_evaluation_is_refused(mixed: Exported, tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"evaluate --json"):
        describe(mixed.bundle, tmp_path / "documents", evaluation=tmp_path / "e.json")


def test_a_document_that_is_too_long_is_refused_and_not_cut(
    mixed: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(mixed.bundle, tmp_path / "documents")
    bundle = open_bundle(mixed.bundle)
    sizes = sorted((tmp_path / "documents" / name).stat().st_size for name in TYPES)
    monkeypatch.setattr(limits, "JSON_BYTES", sizes[-1])
    assert len(read_documents(tmp_path / "documents", bundle)) == len(TYPES)
    monkeypatch.setattr(limits, "JSON_BYTES", sizes[-1] - 1)
    with pytest.raises(SpecError, match=f"over {sizes[-1] - 1} bytes"):
        read_documents(tmp_path / "documents", bundle)


def test_a_damaged_bundle_is_not_described(mixed: Exported, tmp_path: Path) -> None:
    bundle = shutil.copytree(mixed.bundle, tmp_path / "bundle")
    (bundle / "parity.json").write_bytes(b"{}")
    with pytest.raises(BundleError):
        describe(bundle, tmp_path / "documents")


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_a_pack_carries_them_as_referrers(mixed: Exported, tmp_path: Path, suffix: str) -> None:
    bundle, key = release(mixed.bundle, tmp_path / "bundle", SEVEN), TestKey()
    sign(bundle, key)
    documents = describe(bundle, tmp_path / "documents")
    packed = pack_bundle(bundle, tmp_path / f"pack{suffix}", layout=not suffix, documents=tmp_path / "documents")
    installed = install(tmp_path / f"pack{suffix}", tmp_path / "store", policy(key.trusted()))
    assert installed.state.current.image == packed.digest.removeprefix("sha256:")
    if suffix:
        return
    blobs = tmp_path / "pack" / "blobs" / "sha256"
    ours, *referrers = json.loads((tmp_path / "pack" / "index.json").read_bytes())["manifests"]
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in (ours, *referrers)] == [
        "7", "7-sbom", "7-provenance", "7-card",
    ]  # fmt: skip
    for entry in referrers:
        image = json.loads((blobs / entry["digest"][7:]).read_bytes())
        assert image["subject"]["digest"] == packed.digest
        assert image["artifactType"] == entry["artifactType"] == image["layers"][0]["mediaType"]
        (layer,) = image["layers"]
        name = layer["annotations"]["org.opencontainers.image.title"]
        assert (blobs / layer["digest"][7:]).read_bytes() == documents[name]
        assert hashlib.sha256(documents[name]).hexdigest() == layer["digest"][7:]


@pytest.mark.parametrize("name", [SBOM, PROVENANCE, CARD])
def test_documents_of_another_bundle_are_not_attached(mixed: Exported, tmp_path: Path, name: str) -> None:
    bundle = release(mixed.bundle, tmp_path / "bundle", SEVEN)
    describe(bundle, tmp_path / "documents")
    (tmp_path / "documents" / name).write_bytes(describe(mixed.bundle, tmp_path / "others")[name])
    with pytest.raises(SpecError, match=name):
        pack_bundle(bundle, tmp_path / "pack", layout=True, documents=tmp_path / "documents")
    (tmp_path / "documents" / name).unlink()
    with pytest.raises(SpecError, match=name):
        pack_bundle(bundle, tmp_path / "pack", layout=True, documents=tmp_path / "documents")
    assert not (tmp_path / "pack").exists()


def test_the_command_says_what_it_wrote(mixed: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["describe", str(mixed.bundle), "-o", str(tmp_path / "documents"), "--json"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    report = json.loads(printed.out)
    assert report["unknown_licences"] == ["arguments.files.read", "arguments.files.write"]
    assert report["manifest_sha256"] == manifest_sha256(mixed.bundle)
    assert "unknown" in printed.err
    bundle = shutil.copytree(mixed.bundle, tmp_path / "older")
    (bundle / "licences.json").unlink()
    change_manifest(bundle, lambda value: value.update(files=[*filter(_no_licences, value["files"])]))
    with pytest.raises(SystemExit):
        cli.main(["describe", str(bundle), "-o", str(tmp_path / "older documents"), "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["unknown_licences"] is None
    assert "not recorded" in printed.err


def _no_licences(entry: dict[str, Any]) -> bool:
    return bool(entry["path"] != "licences.json")
