"""The kit's adapters: the committed ones are those that these settings make, and of this base."""

import json
from pathlib import Path

import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.adapters import runs
from dualtune_edge_kit.training.adapters.runs import Run
from dualtune_edge_kit.training.data import toolsets

from dualtune_edge.export.adapter.training_files import BASE_FINGERPRINT
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import RECORD, FinetuneReport
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune

PLAIN = [run for run in runs.all_runs() if run.objective != "joint"]


@pytest.mark.parametrize("run", PLAIN, ids=lambda run: run.folder)
def test_a_committed_adapter_was_made_with_these_settings(run: Run, tmp_path: Path) -> None:
    made = FOLDER / "adapters" / run.folder
    recorded = json.loads((made / RECORD).read_text(encoding="utf-8"))["settings"]
    settings = runs.settings(FOLDER / "base", tmp_path / "train.jsonl", tmp_path, run, seed=0)
    assert settings.model_dump(mode="json", include=set(recorded)) == recorded
    routing = FOLDER / "adapters" / "toolset" / BASE_FINGERPRINT
    assert (made / BASE_FINGERPRINT).read_bytes() == routing.read_bytes()


def test_a_stopped_adapter_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PLAIN", 60)
    monkeypatch.setattr(runs, "TYPED", 60)
    monkeypatch.setitem(runs._STEPS, "arguments", (2, 2, "arguments"))
    run, base, data, said = Run("git", "arguments", "git_log"), FOLDER / "base", tmp_path / "data", list[str]()
    asked: list[bool] = []

    def stopped(settings: FinetuneSettings, *, base: Base, files: TrajectoryFiles) -> FinetuneReport:
        asked.append(settings.resume)
        if not settings.resume:
            state_path(settings.output).parent.mkdir(parents=True)
            state_path(settings.output).write_bytes(b"")
            raise KeyboardInterrupt
        state_path(settings.output).unlink()
        return finetune(settings.model_copy(update={"resume": False}), base=base, files=files)

    monkeypatch.setattr(runs, "finetune", stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.make(base, data, tmp_path / "out", [run], seed=0, say=said.append)
    runs.make(base, data, tmp_path / "out", [run], seed=0, say=said.append)
    assert asked == [False, True]
    assert len(said) == 1
    assert {json.loads(line)["toolset"] for line in data.read_text(encoding="utf-8").splitlines()} == set(
        toolsets.NAMES
    )
