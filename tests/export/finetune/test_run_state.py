from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dualtune_edge.export.finetune.run_state import RunState, StateFile
from dualtune_edge.toolkit.errors import OutputError


def test_without_a_number_the_first_step_is_saved_and_then_one_a_minute(tmp_path: Path) -> None:
    now = [1000.0]
    file = StateFile(tmp_path / "state", None, lambda: now[0])
    assert file.due(1)
    file.save(RunState("origin"))
    due = []
    for step in range(2, 9):
        now[0] += 25.0
        if file.due(step):
            due.append(step)
            file.save(RunState("origin"))
    assert due == [4, 7]


def test_with_a_number_every_so_many_steps_are_saved(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state", 3)
    assert [step for step in range(1, 10) if file.due(step)] == [3, 6, 9]


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state", None)
    state = RunState("origin", [0.5, 0.25], 7, 3, {"a": torch.ones(2)}, {"step": 2}, random=torch.get_rng_state())
    file.save(state)
    loaded = file.load("origin", resume=True)
    assert (loaded.losses, loaded.tokens, loaded.learnt, loaded.optimizer) == ([0.5, 0.25], 7, 3, {"step": 2})
    assert torch.equal(loaded.adapter["a"], state.adapter["a"])
    assert loaded.random is not None
    assert state.random is not None
    assert torch.equal(loaded.random, state.random)


@pytest.mark.parametrize("contents", [b"", b"PK", b"no checkpoint at all"])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "state").write_bytes(contents)
    with pytest.raises(OutputError, match="a checkpoint of this version"):
        StateFile(tmp_path / "state", None).load("origin", resume=True)


def test_where_it_cannot_be_written_the_old_state_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "state", None)
    file.save(RunState("origin", [1.0]))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        file.save(RunState("origin", [1.0, 2.0]))
    assert file.load("origin", resume=True).losses == [1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
