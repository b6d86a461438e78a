"""What stands in a folder: written before a task, read before and after it, and compared."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from checkable.task import Check, RepositoryChanges, Step, World

# The user's own git settings change neither a status nor a commit's hash.
GIT_ENVIRONMENT: Final[Mapping[str, str]] = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_FIRST_DAY: Final = 1  # commits are made at noon of 1 March 2024 and the days after it


@dataclass(frozen=True)
class Repository:
    """A repository's state. `branch` is None where HEAD is detached; `branches` hold messages, the newest first."""

    branch: str | None
    branches: dict[str, tuple[str, ...]]
    status: tuple[str, ...]  # lines of `git status --porcelain`


@dataclass(frozen=True)
class State:
    """Everything below a folder; git's own files count as `repositories`."""

    files: dict[str, bytes]
    folders: frozenset[str]
    repositories: dict[str, Repository]


def build(root: Path, world: World) -> None:
    """Make `root` hold the world and nothing else. The folder itself stays: servers work in it."""
    for entry in root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for path, text in world.files.items():
        _write(root / path, text.encode())
    for path, content in world.media.items():
        _write(root / path, content)
    for path in world.folders:
        (root / path).mkdir(parents=True)
    for path, steps in world.repositories.items():
        _build_repository(root / path, steps)


def read(root: Path) -> State:
    """The state of `root`."""
    found = list(_walk(root))
    repositories = {_name(root, path.parent): _repository(path.parent) for path in found if path.name == ".git"}
    return State(
        files={_name(root, path): path.read_bytes() for path in found if path.is_file()},
        folders=frozenset(_name(root, path) for path in found if path.is_dir() and path.name != ".git"),
        repositories=repositories,
    )


def expected(before: State, check: Check) -> State:
    """The state that a check asks for, where it was `before`."""
    gone = {path for path in (*before.files, *before.folders) if _is_below(path, check.absent)}
    files = {path: content for path, content in before.files.items() if path not in gone}
    files |= {path: text.encode() for path, text in check.files.items()}
    parents = {parent.as_posix() for path in (*files, *check.folders) for parent in Path(path).parents} - {"."}
    return State(
        files=files,
        folders=(before.folders - gone) | parents | set(check.folders),
        repositories={
            path: _changed(repository, check.repositories.get(path, RepositoryChanges()))
            for path, repository in before.repositories.items()
        },
    )


def differences(wanted: State, found: State) -> Iterator[str]:
    """What is not as it should be, a line each."""
    for path in sorted(wanted.files.keys() | found.files.keys()):
        if path not in found.files:
            yield f"{path} is not there"
        elif path not in wanted.files:
            yield f"{path} is there"
        elif wanted.files[path] != found.files[path]:
            yield f"{path} holds {_shown(found.files[path])}; expected {_shown(wanted.files[path])}"
    for path in sorted(wanted.folders ^ found.folders):
        yield f"the folder {path} is {'not ' if path in wanted.folders else ''}there"
    for path in sorted(wanted.repositories.keys() | found.repositories.keys()):
        yield from _repository_differences(path, wanted.repositories.get(path), found.repositories.get(path))


def _repository_differences(path: str, wanted: Repository | None, found: Repository | None) -> Iterator[str]:
    if wanted is None or found is None:
        yield f"the repository {path} is {'there' if wanted is None else 'not there'}"
        return
    for what in ("branch", "branches", "status"):
        if (one := getattr(found, what)) != (other := getattr(wanted, what)):
            yield f"{path}: {what} {one}; expected {other}"


def _changed(before: Repository, changes: RepositoryChanges) -> Repository:
    branches = before.branches | {name: before.branches[base] for name, base in changes.created.items()}
    branches |= {name: (*messages, *branches[name]) for name, messages in changes.commits.items()}
    return replace(
        before,
        branch=changes.branch or before.branch,
        branches=branches,
        status=before.status if changes.status is None else tuple(sorted(changes.status)),
    )


def _build_repository(folder: Path, steps: tuple[Step, ...]) -> None:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org"), ("commit.gpgsign", "false")):
        git(folder, "config", key, value)
    day = _FIRST_DAY
    for step in steps:
        if step.write is not None:
            for path, text in step.write.items():
                _write(folder / path, text.encode())
        if step.commit is not None:
            git(folder, "add", "--all")
            git(folder, "commit", "-q", "-m", step.commit, day=day)
            day += 1
        if step.stage is not None:
            git(folder, "add", "--", *step.stage)
        if step.switch is not None:
            known = git(folder, "branch", "--list", step.switch)
            git(folder, "switch", "-q", *(() if known else ("-c",)), step.switch)
        if step.tag is not None:
            git(folder, "tag", step.tag)
        if step.remote is not None:
            git(folder, "update-ref", f"refs/remotes/origin/{step.remote}", "HEAD")


def _repository(folder: Path) -> Repository:
    names = git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()
    return Repository(
        branch=git(folder, "branch", "--show-current").strip() or None,
        branches={name: tuple(_messages(folder, name)) for name in names},
        status=tuple(sorted(git(folder, "status", "--porcelain", "--untracked-files=all").splitlines())),
    )


def _messages(folder: Path, branch: str) -> Iterator[str]:
    for message in git(folder, "log", "-z", "--format=%B", branch, "--").split("\0"):
        if message:
            yield message.strip()


def git(folder: Path, *arguments: str, day: int = _FIRST_DAY) -> str:
    """What git prints. Commits are Ada's, at noon of a day in March 2024."""
    when = f"2024-03-{day:02}T12:00:00+00:00"
    environment = {**os.environ, **GIT_ENVIRONMENT, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def _walk(root: Path) -> Iterator[Path]:
    """Everything below a folder; of `.git` only the folder itself."""
    for entry in sorted(root.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink() and entry.name != ".git":
            yield from _walk(entry)


def _is_below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _shown(content: bytes) -> str:
    text = repr(content.decode(errors="replace"))
    return text if len(text) <= 60 else f"{text[:60]}…"
