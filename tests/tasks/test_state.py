"""States: every kind of difference between what a check wants and what there is has its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from checkable import state
from checkable.task import Check, RepositoryChanges, Step, World

WORLD = World(
    files={"a.txt": "one", "sub/b.txt": "two"},
    folders=("empty",),
    repositories={
        "r": (
            Step(write={"f": "1\n", "g": "1\n"}),
            Step(commit="First"),
            Step(switch="side"),
            Step(write={"h": "1\n"}),
            Step(commit="Aside"),
            Step(switch="main"),
            Step(write={"f": "2\n"}),
        )
    },
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    state.build(tmp_path, WORLD)
    return tmp_path


def faults(root: Path, check: Check, before: state.State) -> list[str]:
    return list(state.differences(state.expected(before, check), state.read(root)))


def test_a_world_is_what_it_says(root: Path) -> None:
    found = state.read(root)
    assert found.files == {
        "a.txt": b"one",
        "sub/b.txt": b"two",
        "r/f": b"2\n",
        "r/g": b"1\n",
    }
    assert found.folders == {"sub", "empty", "r"}
    assert found.repositories == {
        "r": state.Repository("main", {"main": ("First",), "side": ("Aside", "First")}, (" M f",))
    }


def test_a_world_is_built_over_whatever_was_there(root: Path) -> None:
    before = state.read(root)
    (root / "left").mkdir()
    (root / "left" / "x").write_text("x")
    (root / "a.txt").unlink()
    (root / "link").symlink_to(root / "sub")
    state.build(root, WORLD)
    assert state.read(root) == before


def test_hashes_are_the_same_in_every_folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    state.build(other, WORLD)
    assert state.git(root / "r", "rev-parse", "main", "side") == state.git(other / "r", "rev-parse", "main", "side")


def test_nothing_changed_is_no_difference(root: Path) -> None:
    assert faults(root, Check(facts=("x",)), state.read(root)) == []


def test_each_change_is_noticed(root: Path) -> None:
    before = state.read(root)
    (root / "a.txt").write_text("other")
    (root / "new").mkdir()
    (root / "new" / "c").write_text("c")
    (root / "sub" / "b.txt").unlink()
    (root / "empty").rmdir()
    assert faults(root, Check(facts=("x",)), before) == [
        "a.txt holds 'other'; expected 'one'",
        "new/c is there",
        "sub/b.txt is not there",
        "the folder empty is not there",
        "the folder new is there",
    ]


def test_each_change_of_a_repository_is_noticed(root: Path) -> None:
    before, folder = state.read(root), root / "r"
    state.git(folder, "branch", "extra")
    assert "branches" in faults(root, Check(facts=("x",)), before)[0]
    state.git(folder, "branch", "-D", "extra")
    state.git(folder, "add", "f")
    assert faults(root, Check(facts=("x",)), before) == ["r: status ('M  f',); expected (' M f',)"]
    state.git(folder, "commit", "-m", "Second")
    assert len(faults(root, Check(facts=("x",)), before)) == 2
    state.git(folder, "checkout", "-q", "--detach")
    assert "r: branch None; expected main" in faults(root, Check(facts=("x",)), before)
    shutil.rmtree(folder / ".git")
    assert "the repository r is not there" in faults(root, Check(facts=("x",)), before)


def test_the_changes_of_a_check_are_what_is_expected(root: Path) -> None:
    before = state.read(root)
    check = Check(
        files={"deep/er/c.txt": "three", "a.txt": "uno"},
        absent=("sub",),
        folders=("bare",),
        repositories={"r": RepositoryChanges(created={"new": "side"}, commits={"main": ("Second",)}, status=())},
    )
    assert len(faults(root, check, before)) > 5
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "c.txt").write_text("three")
    (root / "a.txt").write_text("uno")
    shutil.rmtree(root / "sub")
    (root / "bare").mkdir()
    state.git(root / "r", "branch", "new", "side")
    state.git(root / "r", "commit", "-qam", "Second")
    assert faults(root, check, before) == []
