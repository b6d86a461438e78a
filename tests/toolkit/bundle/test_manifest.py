"""The manifest's bytes are those of the golden files, which no test writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dualtune_edge.toolkit.bundle.graph_form import DynamicGraph, StaticGraph
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty, Manifest, Stage

GOLDEN = Path(__file__).parent / "golden"


def golden(version: int) -> bytes:
    return (GOLDEN / f"manifest-{version}.json").read_bytes()


def changed(golden_version: int, **fields: object) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(golden(golden_version))
    return value | fields


@pytest.mark.parametrize("version", [1, 2])
def test_the_bytes_stay_as_they_are(version: int) -> None:
    manifest = Manifest.model_validate_json(golden(version))
    assert manifest.version == version
    assert manifest.to_bytes() == golden(version)


def test_copied_properties_are_in_the_stages_that_have_some() -> None:
    plain = Stage(prompt="prompts/a.json")
    assert json.loads(plain.model_dump_json()) == {"prompt": "prompts/a.json", "adapter": None, "state": None}
    stage = plain.model_copy(update={"copied": (CopiedProperty(name="path", border="characters"),)})
    written = stage.model_dump_json()
    assert json.loads(written)["copied"] == [{"name": "path", "border": "characters"}]
    assert Stage.model_validate_json(written) == stage


def test_one_profile_has_the_primary_model_alone() -> None:
    manifest = Manifest.model_validate_json(golden(1))
    assert (manifest.variants, manifest.models) == ((), ())
    primary = manifest.model(PRIMARY)
    assert primary == manifest.primary
    assert (primary.folder, primary.graph, primary.adapters) == ("model", DynamicGraph(), manifest.adapters)
    assert primary.stage_states == {"prompts/selection.git.json": "states/selection.git.kv"}


def test_variants_name_their_models() -> None:
    manifest = Manifest.model_validate_json(golden(2))
    assert [(variant.profile, variant.model) for variant in manifest.variants] == [
        ("laptop", PRIMARY),
        ("phone", "phone"),
    ]
    phone = manifest.model("phone")
    assert phone.graph == StaticGraph(chunks=(1, 64), kv_length=1024)
    assert phone.graph.files == ("chunk-1.onnx", "chunk-64.onnx")
    assert [context.adapter for context in phone.contexts] == ["selection.git"]


@pytest.mark.parametrize(
    "value",
    [
        changed(1, version=2),
        changed(2, version=1),
        changed(2, version=3),
        changed(2, variants=[]),
        changed(1, models=changed(2)["models"]),
    ],
)
def test_variants_are_version_2_and_only_that(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="version"):
        Manifest.model_validate(value)


@pytest.mark.parametrize("expires", [None, "2030-01-31"])
def test_a_release_is_written_as_it_was_read(expires: str | None) -> None:
    release = {"product": "contoso.helper-2", "version": 7, "expires": expires}
    written = Manifest.model_validate(changed(1, release=release)).to_bytes()
    assert json.loads(written)["release"] == release
    assert Manifest.model_validate_json(written).to_bytes() == written


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": True},
        {"version": "7"},
        {"version": 7.5},
        {"version": 2**53},
        {"product": ""},
        {"product": "../helper"},
        {"product": "Helper"},
        {"product": "helper\n"},
        {"product": "a" * 129},
        {"expires": "soon"},
        {"channel": "beta"},
    ],
)
def test_what_is_no_release(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(changed(1, release={"product": "helper", "version": 7} | change))


@pytest.mark.parametrize("chunks", [(), (64,), (64, 1), (1, 64, 64), (1, 2048), (0, 1)])
def test_chunks_rise_from_one_token_to_no_more_than_the_cache(chunks: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        StaticGraph(chunks=chunks, kv_length=1024)
