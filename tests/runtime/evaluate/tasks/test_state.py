"""States: every kind of difference between what a check wants and what there is has its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dualtune_edge.runtime.evaluate.tasks import state
from dualtune_edge.runtime.evaluate.tasks.task import Check, RepositoryChanges, Step, World
from dualtune_edge.runtime.evaluate.tasks.worlds import build, git
from dualtune_edge.toolkit.errors import DataError

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
    build(tmp_path, WORLD)
    return tmp_path


def faults(root: Path, check: Check, before: state.State) -> list[str]:
    return list(state.differences(state.expected(before, check), state.read(root, before)))


def test_a_world_is_what_it_says(root: Path) -> None:
    found = state.read(root)
    assert found.files == {
        "a.txt": b"one",
        "sub/b.txt": b"two",
        "r/f": b"2\n",
        "r/g": b"1\n",
    }
    assert found.folders == {"sub", "empty", "r"}
    repository = found.repositories["r"]
    assert isinstance(repository, state.Repository)
    assert (repository.branch, repository.status) == ("main", (" M f",))
    assert repository.branches == {"main": ("First",), "side": ("Aside", "First")}
    days = git(root / "r", "log", "--format=%ad %cd", "--date=short", "side").split()
    assert days == ["2024-03-02"] * 2 + ["2024-03-01"] * 2, "a commit a day, so that `log` has an order"


def test_what_is_gone_is_below_a_path_and_not_beside_it(root: Path) -> None:
    (root / "sub.txt").write_text("three")
    (root / "subtle").mkdir()
    before = state.read(root)
    shutil.rmtree(root / "sub")
    assert faults(root, Check(absent=("sub",)), before) == []


def test_a_world_is_built_over_whatever_was_there(root: Path) -> None:
    before = state.read(root)
    (root / "left").mkdir()
    (root / "left" / "x").write_text("x")
    (root / "a.txt").unlink()
    (root / "link").symlink_to(root / "sub")
    build(root, WORLD)
    assert state.read(root) == before


def test_hashes_are_the_same_in_every_folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    build(other, WORLD)
    assert git(root / "r", "rev-parse", "main", "side") == git(other / "r", "rev-parse", "main", "side")


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
    git(folder, "branch", "extra")
    assert "branches" in faults(root, Check(facts=("x",)), before)[0]
    git(folder, "branch", "-D", "extra")
    git(folder, "add", "f")
    assert faults(root, Check(facts=("x",)), before) == ["r: status ('M  f',); expected (' M f',)"]
    git(folder, "commit", "-m", "Second")
    assert len(faults(root, Check(facts=("x",)), before)) == 2
    git(folder, "checkout", "-q", "--detach")
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
    git(root / "r", "branch", "new", "side")
    git(root / "r", "commit", "-qam", "Second")
    assert faults(root, check, before) == []


@pytest.mark.parametrize("name", ["config", "config.worktree", "commondir", "info/attributes"])
def test_git_is_not_asked_where_its_settings_are_other_ones(root: Path, tmp_path: Path, name: str) -> None:
    """They name programs that git runs: a file that a model wrote must not."""
    before = state.read(root)
    with (root / "r" / ".git" / name).open("a") as file:
        file.write(f"[core]\n\tfsmonitor = touch {tmp_path / 'ran'}\n")
    assert faults(root, Check(facts=("x",)), before) == ["r: the settings of its git are other ones"]
    assert not (tmp_path / "ran").exists()


def test_a_repository_that_no_world_has_is_named_and_not_asked(root: Path, tmp_path: Path) -> None:
    before = state.read(root)
    (root / "new" / ".git").mkdir(parents=True)
    (root / "new" / ".git" / "config").write_text(f"[core]\n\tfsmonitor = touch {tmp_path / 'ran'}\n")
    assert faults(root, Check(facts=("x",)), before) == ["the folder new is there", "the repository new is there"]
    assert not (tmp_path / "ran").exists()


def test_a_link_is_no_file_that_it_leads_to(root: Path) -> None:
    before = state.read(root)
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to("/dev/zero")
    (root / "up").symlink_to("..")
    assert faults(root, Check(facts=("x",)), before) == ["a.txt holds '→ /dev/zero'; expected 'one'", "up is there"]


def test_a_branch_that_is_not_there_is_named(root: Path) -> None:
    for changes in (RepositoryChanges(created={"new": "old"}), RepositoryChanges(commits={"old": ("x",)})):
        with pytest.raises(DataError, match="the branch 'old'"):
            state.expected(state.read(root), Check(repositories={"r": changes}))


@pytest.mark.parametrize(
    "world",
    [
        World(files={"a": "", "a/b": ""}),
        World(files={"a": ""}, folders=("a",)),
        World(repositories={"r": (Step(commit="nothing"),)}),
        World(repositories={"r": (Step(stage=("absent",)),)}),
    ],
)
def test_a_world_that_cannot_be_is_refused(tmp_path: Path, world: World) -> None:
    with pytest.raises(DataError):
        build(tmp_path, world)
