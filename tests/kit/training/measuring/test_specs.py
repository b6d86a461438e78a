"""What the kit exports: its plain adapters, and the same toolsets with other ones once these are trained."""

import json
from pathlib import Path
from typing import get_args

from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.measuring import specs

from dualtune_edge.export.spec.document import ExportSpec, read_spec


def without_folders(spec: ExportSpec) -> list[object]:
    return [entry.model_copy(update={"selection": None, "arguments": None}) for entry in spec.toolsets]


def folders(spec: ExportSpec) -> list[Path]:
    return [entry.selection.path for entry in spec.toolsets if entry.selection]


def test_the_kit_is_what_is_measured_as_decoupled() -> None:
    declared, measured = read_spec(FOLDER / "dualtune.yaml"), specs.spec("decoupled", "external")
    assert without_folders(declared) == without_folders(measured)
    assert (
        folders(declared) == folders(measured) == [FOLDER / "adapters" / name / "selection" for name in toolsets.NAMES]
    )


def test_the_kit_has_the_adapters_of_what_needs_none_and_of_what_it_exports() -> None:
    assert {method for method in get_args(specs.Method) if specs.trained(method)} == {"base", "decoupled"}


def test_activated_adapters_are_measured_in_the_same_toolsets() -> None:
    plain, activated = specs.spec("decoupled", "external"), specs.spec("activated", "external")
    assert without_folders(plain) == without_folders(activated)
    assert folders(activated) == [FOLDER / "activated" / name / "selection" for name in toolsets.NAMES]


def test_every_adapter_is_a_plain_one() -> None:
    found = [path for name in toolsets.NAMES for path in (FOLDER / "adapters" / name).glob("**/adapter_config.json")]
    assert len(found) == 27
    assert not any(json.loads(path.read_text(encoding="utf-8")).get("alora_invocation_tokens") for path in found)
