"""Task files: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dualtune_edge.runtime.evaluate.tasks.task import Check, Step, Task, Tasks, World, read_tasks
from dualtune_edge.toolkit.errors import DataError

RIGHT: dict[str, Any] = {
    "name": "x",
    "world": "w",
    "toolsets": ["filesystem"],
    "request": "name the crew",
    "gold": [{"call": "filesystem.read_file"}],
    "check": {"facts": ["Ines"]},
}
TOML = """
[worlds.w.files]
"crew.txt" = "Ines"

[[tasks]]
name = "crew"
world = "w"
toolsets = ["filesystem"]
request = "Name who sails"
check.facts = ["Ines"]
"""


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"check": {}}, "changes or facts"),
        ({"check": {"facts": ["the crew"]}}, "it says 'the crew'"),
        ({"toolsets": ["git"]}, "filesystem is none"),
        ({"gold": [{"call": "read_file"}]}, "pattern"),
        ({"cheque": {}}, "Extra inputs"),
        ({"steps": 0}, "greater than or equal"),
        ({"seconds": 0}, "greater than 0"),
        *(
            ({"check": {"files": {path: ""}}}, "relative path")
            for path in ("/etc/passwd", "../x", "a/../../x", "a//b", ".")
        ),
        ({"check": {"absent": [".."]}}, "relative path"),
    ],
)
def test_a_task_that_cannot_be_checked_is_refused(changes: dict[str, Any], match: str) -> None:
    assert Task.model_validate(RIGHT)
    with pytest.raises(ValidationError, match=match):
        Task.model_validate(RIGHT | changes)


def test_names_are_unique_and_worlds_known() -> None:
    task = Task.model_validate(RIGHT)
    with pytest.raises(ValidationError, match="stands twice"):
        Tasks(worlds={"w": World()}, tasks=(task, task))
    with pytest.raises(ValidationError, match="is not"):
        Tasks(worlds={}, tasks=(task,))
    asks = task.model_copy(update={"check": Check.model_validate({"repositories": {"r": {"branch": "x"}}})})
    with pytest.raises(ValidationError, match="none at r"):
        Tasks(worlds={"w": World()}, tasks=(asks,))


def test_a_step_does_one_thing() -> None:
    with pytest.raises(ValidationError, match="one of write, commit"):
        Step(commit="x", switch="y")
    with pytest.raises(ValidationError, match="relative path"):
        Step(write={"../x": ""})
    assert World(repositories={"r": (Step(commit="x"),)})
    assert not Check(facts=("x",)).changes


def test_the_folder_stands_for_its_name_in_every_text(tmp_path: Path) -> None:
    root = tmp_path / 'a "b" \\c'
    task = Task.model_validate(
        RIGHT
        | {"request": "look into {root}/a", "check": {"facts": ["{root}/b"]}}
        | {"gold": [{"call": "filesystem.read_file", "arguments": {"path": "{root}/a"}}]}
    ).at(root)
    assert task.request == f"look into {root}/a"
    assert task.check.facts == (f"{root}/b",)
    assert task.gold[0].arguments == {"path": f"{root}/a"}


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "b.toml").write_text(TOML[TOML.index("[[tasks]]") :].replace("crew", "more"))
    read = read_tasks(tmp_path)
    assert [task.name for task in read.tasks] == ["crew", "more"]
    assert read.world(read.tasks[1]).files == {"crew.txt": "Ines"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "tasks"),
        ("tasks = 1", "'tasks' that is something else"),
        ("worlds = []", "'worlds' that is something else"),
        ("[[task]]", "'task'"),
        ("[[tasks]", "Expected"),
        (TOML.replace("crew.txt", "/crew.txt"), "/crew.txt"),
        (TOML.replace('world = "w"', 'world = "v"'), "v, of crew, is not"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(DataError) as refused:
        read_tasks(tmp_path / "t.toml")
    assert found in str(refused.value)
    assert "t.toml" in str(refused.value)


def test_a_world_of_two_files_and_a_folder_without_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*\.toml"):
        read_tasks(tmp_path)
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "b.toml").write_text(TOML)
    with pytest.raises(DataError, match="the world w, which another file has"):
        read_tasks(tmp_path)


def test_the_page_shows_tasks_that_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    (tmp_path / "t.toml").write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    assert [task.name for task in read_tasks(tmp_path / "t.toml").tasks] == ["crew-list", "commit-atlas"]
