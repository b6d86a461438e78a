"""The adapter that chooses the toolset: the part of the kit's remake that makes it, and the committed one."""

import json
from pathlib import Path

import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.adapters import routing
from dualtune_edge_kit.training.measuring import specs

from dualtune_edge.export.finetune.report import RECORD, FinetuneReport
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.settings import FinetuneSettings
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


def test_a_stopped_one_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def stopped(settings: FinetuneSettings) -> FinetuneReport:
        asked.append(settings.resume)
        state_path(settings.output).write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(routing, "finetune", stopped)
    monkeypatch.setattr(routing, "_TYPED", 4)
    monkeypatch.setattr(routing, "_PLAIN", 4)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            routing.make(FOLDER / "base", tmp_path / "data", tmp_path / "toolset", print)
    assert asked == [False, True]


def test_the_decoupled_kit_has_it() -> None:
    declared = read_spec(FOLDER / "dualtune.yaml").toolset
    assert declared is not None
    assert declared.path == ADAPTER
    having = [method for method in specs.METHODS if specs.spec(method, "external").toolset]
    assert having == ["decoupled", "activated"]
