"""A manifest whose variants or models do not agree with the rest of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.bundle.variant_checks import variant_faults
from dualtune_edge.toolkit.bundle.manifest import Manifest

GOLDEN = Path(__file__).parents[2] / "toolkit" / "bundle" / "golden"
Change = Callable[[dict[str, Any]], object]


def faults(change: Change) -> list[str]:
    value = json.loads((GOLDEN / "manifest-2.json").read_bytes())
    change(value)
    return list(variant_faults(Manifest.model_validate(value)))


def drop_file(path: str) -> Change:
    return lambda manifest: manifest.update(files=[file for file in manifest["files"] if file["path"] != path])


def test_a_manifest_that_agrees_with_itself() -> None:
    assert faults(lambda _: None) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["variants"][1].update(model="tablet"), "variant 'phone' with model 'tablet'"),
        (lambda m: m["variants"][1].update(profile="laptop"), "two variants named 'laptop'"),
        (lambda m: m["variants"].pop(1), "model 'phone', which is no variant's"),
        (lambda m: m["models"].append(m["models"][0]), "two models named 'phone'"),
        (lambda m: m["models"][0].update(name="model"), "two models named 'model'"),
        (drop_file("profiles/phone.toml"), "no 'profiles/phone.toml'"),
        (drop_file("variants/phone/model/chunk-64.onnx"), "no 'variants/phone/model/chunk-64.onnx'"),
        (drop_file("variants/phone/merged/selection.git/chunk-1.onnx"), "chunk-1.onnx"),
        (drop_file("variants/phone/merged/selection.git/htp.bin"), "htp.bin"),
        (lambda m: m["models"][0].update(folder="../elsewhere"), "no '../elsewhere/chunk-1.onnx'"),
        (lambda m: m["models"][0].update(adapters=[]), "other adapters than the primary model"),
        (lambda m: m["models"][0]["adapters"][0].update(sha256="0" * 64), "other adapters than the primary model"),
        (lambda m: m["models"][0]["contexts"][0].update(adapter="nobody"), "for adapter 'nobody'"),
        (
            lambda m: m["models"][0].update(
                states=m["states"], stage_states={"prompts/x.json": m["states"][0]["path"]}
            ),
            "'prompts/x.json' with prefix state",
        ),
        (lambda m: m["models"][0].update(states=[*m["states"], *m["states"]]), "two prefix states"),
        (
            lambda m: m["models"][0].update(states=[{**m["states"][0], "path": "model/model.onnx"}]),
            "'model/model.onnx' of 10 bytes",
        ),
    ],
)
def test_each_fault_is_told(change: Change, message: str) -> None:
    assert any(message in fault for fault in faults(change))
