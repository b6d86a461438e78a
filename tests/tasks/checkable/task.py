"""A task as the files in `data/` have it: where it starts, what is asked, the calls that do it, and its check."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Base64Bytes, Field, model_validator

from dualtune_edge.toolkit.frozen import Frozen

DATA: Final = Path(__file__).resolve().parent.parent / "data"
FILES: Final = ("filesystem.toml", "git.toml", "both.toml")
MOST_CALLS: Final = 4

Text = Annotated[str, Field(min_length=1)]


class Step(Frozen):
    """One step towards a repository's first state; exactly one field is set."""

    write: dict[Text, str] | None = None  # files below the repository and their texts
    commit: Text | None = None  # everything that is there, with this message
    stage: tuple[Text, ...] | None = None
    switch: Text | None = None  # to a branch, which is created where there is none
    tag: Text | None = None
    remote: Text | None = None  # a branch of `origin` at the current commit

    @model_validator(mode="after")
    def _one_field(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"one of {', '.join(type(self).model_fields)}")
        return self


class World(Frozen):
    """Where tasks start. All paths are relative to the temporary folder."""

    files: dict[Text, str] = Field(default_factory=dict)
    media: dict[Text, Base64Bytes] = Field(default_factory=dict)
    folders: tuple[Text, ...] = ()  # empty ones
    repositories: dict[Text, tuple[Step, ...]] = Field(default_factory=dict)


class GoldCall(Frozen):
    """A call that the task needs; `call` is the toolset and the tool with a dot between them."""

    call: Annotated[str, Field(pattern=r"^\w+\.\w+$")]
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
    result of a call or in the answer. `{root}` in a fact is the temporary folder.
    """

    files: dict[Text, str] = Field(default_factory=dict)  # written or changed
    absent: tuple[Text, ...] = ()  # files or folders that are gone
    folders: tuple[Text, ...] = ()  # new ones
    repositories: dict[Text, RepositoryChanges] = Field(default_factory=dict)
    facts: tuple[Text, ...] = ()
    excluded: tuple[Text, ...] = ()  # stands in no result

    @property
    def changes(self) -> bool:
        """Whether the state has to be another one."""
        return bool(self.files or self.absent or self.folders or self.repositories)


class Task(Frozen):
    """A request and all that decides whether it was done."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    world: Text
    toolsets: Annotated[tuple[Text, ...], Field(min_length=1)]  # on offer
    request: Text
    gold: Annotated[tuple[GoldCall, ...], Field(min_length=1, max_length=MOST_CALLS)]
    check: Check

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if not self.check.changes and not self.check.facts:
            raise ValueError("a check that can fail: changes or facts")
        if said := [fact for fact in self.check.facts if fact in self.request]:
            raise ValueError(f"facts that the request does not say; it says {said[0]!r}")
        if foreign := {gold.toolset for gold in self.gold} - set(self.toolsets):
            raise ValueError(f"gold calls of the toolsets on offer; {foreign.pop()} is none")
        return self


class Tasks(Frozen):
    """Tasks and the worlds that they name."""

    worlds: dict[str, World]
    tasks: tuple[Task, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Tasks:
        names = [task.name for task in self.tasks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"one task a name; {twice.pop()} stands twice")
        if unknown := {task.world for task in self.tasks} - self.worlds.keys():
            raise ValueError(f"worlds that are described; {unknown.pop()} is not")
        return self

    def world(self, task: Task) -> World:
        """Where the task starts."""
        return self.worlds[task.world]


def read_tasks(data: Path = DATA) -> Tasks:
    """All tasks, in the files' order.

    Raises:
        ValueError: a file is no TOML, or holds something else than worlds and tasks.

    """
    read = [tomllib.loads((data / name).read_text(encoding="utf-8")) for name in ("worlds.toml", *FILES)]
    tasks = [task for document in read for task in document.get("tasks", ())]
    return Tasks.model_validate({"worlds": read[0]["worlds"], "tasks": tasks})
