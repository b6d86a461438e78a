"""The kit's adapters: the committed ones are those that these settings make, and of this base."""

import json
from pathlib import Path

import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.adapters import runs
from dualtune_edge_kit.training.adapters.runs import Length, Run
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.measuring import specs

from dualtune_edge.export.adapter.training_files import BASE_FINGERPRINT
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import RECORD, FinetuneReport
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune


@pytest.mark.parametrize("run", runs.all_runs(), ids=lambda run: run.folder)
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
    plan = {"arguments": Length(2, 2, "arguments")}
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
        runs.make(base, data, tmp_path / "out", [run], seed=0, say=said.append, plan=plan)
    runs.make(base, data, tmp_path / "out", [run], seed=0, say=said.append, plan=plan)
    assert asked == [False, True]
    assert len(said) == 1
    assert {json.loads(line)["toolset"] for line in data.read_text(encoding="utf-8").splitlines()} == set(
        toolsets.NAMES
    )


@pytest.mark.parametrize("toolset", toolsets.NAMES)
def test_joint_and_decoupled_adapters_are_compared_at_as_many_samples(toolset: str) -> None:
    def samples(objectives: set[str], made: list[Run]) -> int:
        of_toolset = (runs.EQUAL[run.objective] for run in made if run.toolset == toolset)
        assert {run.objective for run in made} == objectives
        return sum(length.steps * length.batch for length in of_toolset)

    joint = samples({"joint"}, runs.joint_runs())
    assert 0.9 * joint < samples({"selection", "arguments"}, runs.all_runs()) <= joint


def test_a_joint_adapter_is_of_both_stages_of_its_toolset() -> None:
    for run, measured in zip(runs.joint_runs(), specs.spec("joint", "external").toolsets, strict=True):
        made = FOLDER / "adapters" / run.folder
        assert run.toolset == measured.name
        assert measured.selection is not None
        assert measured.selection.path == made
        assert isinstance(measured.arguments, dict)
        assert {adapter.path for adapter in measured.arguments.values()} == {made}
