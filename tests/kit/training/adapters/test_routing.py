"""The adapter that chooses the toolset: the part of the kit's remake that makes it, and the committed one."""

import json
from pathlib import Path

from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.adapters import routing
from dualtune_edge_kit.training.measuring import specs

from dualtune_edge.export.finetune.report import RECORD
from dualtune_edge.export.spec.document import read_spec

ADAPTER = FOLDER / "adapters" / "toolset"


def test_the_committed_adapter_was_made_with_these_settings(tmp_path: Path) -> None:
    recorded = json.loads((ADAPTER / RECORD).read_text(encoding="utf-8"))["settings"]
    settings = routing._settings(FOLDER / "base", tmp_path / "routes.jsonl", tmp_path / "toolset")
    made = settings.model_dump(mode="json", include=set(recorded))
    assert made == recorded


def test_an_adapter_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    lines: list[str] = []
    routing.make(tmp_path / "no-base", tmp_path / "no-data", tmp_path, lines.append)
    assert lines == []


def test_the_decoupled_kit_has_it() -> None:
    declared = read_spec(FOLDER / "dualtune.yaml").toolset
    assert declared is not None
    assert declared.path == ADAPTER
    having = [method for method in specs.METHODS if specs.spec(method, "external").toolset]
    assert having == ["decoupled", "activated"]
