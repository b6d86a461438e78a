"""A task as a user writes it: where it starts, what is asked, the calls that would do it, and how that is checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Base64Bytes, Field, model_validator

from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import validate

_ROOT: Final = "{root}"  # in a text of a task: its folder


def _below(path: str) -> str:
    """A path that names something below the task's folder.

    Raises:
        ValueError: it is absolute, leads up, or could be written shorter.

    """
    if PurePosixPath(path).is_absolute() or ".." in path.split("/") or str(PurePosixPath(path)) != path or path == ".":
        raise ValueError("a relative path without `..`, such as notes/april.txt")
    return path


Text = Annotated[str, Field(min_length=1)]
Below = Annotated[Text, AfterValidator(_below)]


class Step(Frozen):
    """One step towards a repository's first state; exactly one field is set."""

    write: dict[Below, str] | None = None  # files below the repository and their texts
    commit: Text | None = None  # everything that is there, with this message
    stage: tuple[Below, ...] | None = None
    switch: Text | None = None  # to a branch, which is created where there is none
    tag: Text | None = None
    remote: Text | None = None  # a branch of `origin` at the current commit

    @model_validator(mode="after")
    def _one_field(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"one of {', '.join(type(self).model_fields)}")
        return self


class World(Frozen):
    """Where tasks start. All paths are relative to the task's folder."""

    files: dict[Below, str] = Field(default_factory=dict)
    media: dict[Below, Base64Bytes] = Field(default_factory=dict)
    folders: tuple[Below, ...] = ()  # empty ones
    repositories: dict[Below, tuple[Step, ...]] = Field(default_factory=dict)


class GoldCall(Frozen):
    """A call that the task needs; `call` is the toolset and the tool with a dot between them."""

    call: Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]
    arguments: dict[str, Any] = Field(default_factory=dict)

    @property
    def toolset(self) -> str:
        """The server's name."""
        return self.call.partition(".")[0]

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self.call.partition(".")[2]


class RepositoryChanges(Frozen):
    """What is different in one repository afterwards. What is not named has to be as before."""

    branch: Text | None = None  # that is checked out
    created: dict[Text, Text] = Field(default_factory=dict)  # new branch → the branch where it begins
    commits: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)  # branch → new messages, the newest first
    status: tuple[Text, ...] | None = None  # lines of `git status --porcelain`


class Check(Frozen):
    """When a task is done.

    The final state has to be the first one but for the changes that are named here, and each fact has to stand in the
    result of a call or in the answer.
    """

    files: dict[Below, str] = Field(default_factory=dict)  # written or changed
    absent: tuple[Below, ...] = ()  # files or folders that are gone
    folders: tuple[Below, ...] = ()  # new ones
    repositories: dict[Below, RepositoryChanges] = Field(default_factory=dict)
    facts: tuple[Text, ...] = ()
    excluded: tuple[Text, ...] = ()  # stands in no result

    @property
    def changes(self) -> bool:
        """Whether the state has to be another one."""
        return bool(self.files or self.absent or self.folders or self.repositories)


class Task(Frozen):
    """A request and all that decides whether it was done. `gold` says how it could be done; it may be left out.

    `{root}` in any text is the task's folder.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    world: Text
    toolsets: Annotated[tuple[Text, ...], Field(min_length=1)]  # on offer
    request: Text
    gold: tuple[GoldCall, ...] = ()
    check: Check
    steps: Annotated[int, Field(ge=1)] = 8  # calls at most
    seconds: Annotated[float, Field(gt=0)] = 120.0

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if not self.check.changes and not self.check.facts:
            raise ValueError("a check that can fail: changes or facts")
        if said := [fact for fact in self.check.facts if fact in self.request]:
            raise ValueError(f"facts that the request does not say; it says {said[0]!r}")
        if foreign := {gold.toolset for gold in self.gold} - set(self.toolsets):
            raise ValueError(f"gold calls of the toolsets on offer; {min(foreign)} is none")
        return self

    def at(self, root: Path) -> Task:
        """The task in a folder: with its path for `{root}`."""
        name = json.dumps(str(root), ensure_ascii=False)[1:-1]
        return Task.model_validate_json(self.model_dump_json().replace(_ROOT, name))


class Tasks(Frozen):
    """Tasks and the worlds that they name."""

    worlds: dict[str, World]
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Tasks:
        names = [task.name for task in self.tasks]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"one task a name; {twice[0]} stands twice")
        for task in self.tasks:
            if task.world not in self.worlds:
                raise ValueError(f"worlds that are described; {task.world}, of {task.name}, is not")
            if strange := task.check.repositories.keys() - self.worlds[task.world].repositories.keys():
                raise ValueError(f"checks of the world's repositories; {task.name} has none at {min(strange)}")
        return self

    def world(self, task: Task) -> World:
        """Where the task starts."""
        return self.worlds[task.world]


def read_tasks(path: Path) -> Tasks:
    """The tasks of a TOML file, or of all `*.toml` in a folder, in the files' order.

    Raises:
        DataError: a file is no TOML, a world stands twice, or something else is in it than worlds and tasks.

    """
    worlds: dict[str, Any] = {}
    tasks: list[Any] = []
    for file in _files(path):
        document = _toml(file)
        if twice := worlds.keys() & document.get("worlds", {}).keys():
            raise _unfit(file, f"the world {min(twice)}, which another file has", "a name for each", "Rename one.")
        worlds |= document.pop("worlds", {})
        tasks += document.pop("tasks", ())
        if document:
            raise _unfit(file, f"{min(document)!r}", "[worlds.NAME] and [[tasks]]", "Take it out.")
    return validate(Tasks, {"worlds": worlds, "tasks": tasks}, where=str(path), error=DataError)


def _files(path: Path) -> Sequence[Path]:
    found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not found:
        raise _unfit(path, "no *.toml in it", "tasks", "Check the path.")
    return found


def _toml(file: Path) -> dict[str, Any]:
    """A document whose worlds are a table and whose tasks are a list, if they are there."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _unfit(file, str(error), "a TOML file", "Check the file.") from None
    for key, kind, shape in (("worlds", dict, "[worlds.NAME]"), ("tasks", list, "[[tasks]]")):
        if not isinstance(document.get(key, kind()), kind):
            raise _unfit(file, f"{key!r} that is something else", shape, "See docs/evaluate.md.")
    return document


def _unfit(path: Path, found: str, expected: str, fix: str) -> DataError:
    return DataError(str(path), found=found, expected=expected, fix=fix)
