"""Every part of a bundle has its licence, or is named as one whose licence nobody said."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from export_desk import Desk, Exported
from tiny_bundle import reseal

from dualtune_edge.export.options import Overrides
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.licences import PlannedLicences, plan_licences
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.runtime.bundle.opening import open_signed
from dualtune_edge.toolkit.errors import BundleError, CheckpointError, SpecError

MIT = "SPDX-License-Identifier: MIT\nPermission is hereby granted …\n"


def planned(desk: Desk, licence: Path | None = None) -> PlannedLicences:
    overrides = Overrides(None, None, None, None, None, no_parity=False, licence=licence)
    spec = overrides.applied_to(read_spec(desk.folder / "external.yaml"))
    return plan_licences(spec, read_inputs(spec))


def licences(found: PlannedLicences) -> dict[str, str | None]:
    return {part.name: part.licence for part in found.licences.parts}


def test_what_nobody_says_is_named(own_desk: Desk) -> None:
    found = planned(own_desk)
    assert licences(found) == {
        "base": "Apache-2.0",
        "selection.files": "MIT",
        "arguments.files.read": None,
        "arguments.files.write": None,
    }
    (warning,) = found.warnings
    assert "no licence is known of arguments.files.read, arguments.files.write:" in warning
    assert found.licences.line() == "base Apache-2.0; 1 adapter MIT; 2 adapters unknown"
    assert found.licences.expression == "Apache-2.0 AND LicenseRef-unknown AND MIT"


def test_the_spec_says_it_of_those_that_say_nothing(own_desk: Desk) -> None:
    own_desk.write("own.txt", MIT.replace("MIT", "LicenseRef-contoso"))
    own_desk.add("licences: {base: own.txt, adapters: own.txt}\n")
    found = planned(own_desk)
    said = {part.name: part.said_by for part in found.licences.parts}
    assert licences(found)["arguments.files.read"] == "LicenseRef-contoso"
    assert licences(found)["base"] == "Apache-2.0"
    assert said == {"base": "card", "selection.files": "card"} | dict.fromkeys(
        ("arguments.files.read", "arguments.files.write"), "export"
    )
    assert found.warnings == ()


def test_the_flag_says_it_where_the_spec_does_not(own_desk: Desk) -> None:
    own_desk.write("own.txt", MIT)
    assert planned(own_desk, own_desk.folder / "own.txt").warnings == ()
    own_desk.write("other.txt", MIT.replace("MIT", "ISC"))
    own_desk.add("licences: {adapters: other.txt}\n")
    assert licences(planned(own_desk, own_desk.folder / "own.txt"))["arguments.files.read"] == "ISC"


def test_equal_texts_are_carried_once(own_desk: Desk) -> None:
    own_desk.write("writers/read/LICENSE", MIT)
    own_desk.write("writers/write/LICENSE", MIT)
    found = planned(own_desk)
    path = f"licences/{hashlib.sha256(MIT.encode()).hexdigest()[:12]}-license"
    assert list(found.texts.values()).count(MIT.encode()) == 1
    assert [part.texts for part in found.licences.parts[2:]] == [(path,), (path,)]


@pytest.mark.parametrize("name", ["gone.txt", "writers"])
def test_a_file_that_is_named_must_be_there(own_desk: Desk, name: str) -> None:
    own_desk.add(f"licences: {{base: {name}}}\n")
    with pytest.raises(SpecError, match=r"licences\.base"):
        planned(own_desk)
    with pytest.raises(SpecError, match="--licence"):
        Overrides(None, None, None, None, None, no_parity=False, licence=own_desk.folder / name).applied_to(
            own_desk.spec("mixed")
        )


def test_a_card_that_is_not_on_this_machine_is_refused(own_desk: Desk) -> None:
    own_desk.write("base/README.md", "version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="LFS"):
        planned(own_desk)


def test_the_bundle_carries_them_under_its_hashes(mixed: Exported) -> None:
    text = (mixed.desk.folder / "base" / "LICENSE").read_bytes()
    bundle = open_signed(mixed.bundle, None)
    assert bundle.licences == mixed.report.licences
    (path,) = mixed.report.licences.parts[0].texts
    assert bundle.read(path) == text
    assert {path, "licences.json"} <= {file.path for file in bundle.manifest.files}
    assert json.loads((mixed.bundle / "licences.json").read_bytes())["parts"][0]["licence"] == "Apache-2.0"
    assert any("no licence is known" in warning for warning in mixed.report.warnings)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"texts": ["licences/gone"]}, "licences/gone"),
        ({"texts": ["../../etc/passwd"]}, "passwd"),
        ({"licence": "\x1b[8m"}, "licence"),
        ({"licence": ""}, "licence"),
        ({"licence": "MIT " * 10_000}, "licence"),
        ({"kind": "tool"}, "kind"),
        ({"more": 1}, "more"),
    ],
)
def test_what_says_no_such_thing_is_a_damaged_bundle(
    mixed: Exported, tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    bundle = shutil.copytree(mixed.bundle, tmp_path / "bundle")
    value = json.loads((bundle / "licences.json").read_bytes())
    value["parts"][1] |= change
    (bundle / "licences.json").write_text(json.dumps(value), encoding="utf-8")
    reseal(bundle)
    opened = open_signed(bundle, None)
    with pytest.raises(BundleError, match=found):
        _ = opened.licences
