"""What the kit exports: the same toolsets with plain and with activated adapters, all of which it has."""

import json

import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.measuring import specs

from dualtune_edge.export.spec.document import ExportSpec, read_spec


def without_folders(spec: ExportSpec) -> list[object]:
    return [entry.model_copy(update={"selection": None, "arguments": None}) for entry in spec.toolsets]


def test_the_two_specs_differ_in_the_folders_of_their_adapters_alone() -> None:
    plain, activated = (read_spec(FOLDER / f"{name}.yaml") for name in ("dualtune", "activated"))
    assert without_folders(plain) == without_folders(activated)
    assert plain.model_copy(update={"toolsets": ()}) == activated.model_copy(update={"toolsets": ()})
    for method, spec in (("decoupled", plain), ("activated", activated)):
        assert specs.trained(method), method  # type: ignore[arg-type]
        assert [entry.selection.path for entry in spec.toolsets if entry.selection] == [
            FOLDER / ("adapters" if method == "decoupled" else "activated") / name / "selection"
            for name in toolsets.NAMES
        ]


@pytest.mark.parametrize(("folder", "activated"), [("adapters", False), ("activated", True)])
def test_every_adapter_is_of_its_kind(folder: str, activated: bool) -> None:  # noqa: FBT001
    found = [path for name in toolsets.NAMES for path in (FOLDER / folder / name).glob("**/adapter_config.json")]
    assert len(found) == (27 if activated else 29), "two joint ones among the plain"
    invocations = {str(json.loads(path.read_text(encoding="utf-8")).get("alora_invocation_tokens")) for path in found}
    assert len(invocations) == 1
    assert (invocations == {"None"}) != activated
