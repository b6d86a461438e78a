"""What stands in a folder before and after a task, compared with what its check asks for.

A repository's settings name programs that git runs. So git is asked about a repository only while its settings are
those that it was built with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.evaluate.tasks.task import Check, RepositoryChanges
from dualtune_edge.runtime.evaluate.tasks.worlds import git
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.validation import listing

_SETTINGS: Final = ("config", "config.worktree", "commondir", "info/attributes")  # of `.git`
_SHOWN: Final = 60  # characters of a file


@dataclass(frozen=True)
class Repository:
    """A repository's state. `branch` is None where HEAD is detached; `branches` hold messages, the newest first."""

    branch: str | None
    branches: dict[str, tuple[str, ...]]
    status: tuple[str, ...]  # lines of `git status --porcelain`
    settings: tuple[bytes | None, ...]  # None: there is no such file


@dataclass(frozen=True)
class Unread:
    """A repository that git was not asked about: no world has it, or its settings are other ones."""


@dataclass(frozen=True)
class State:
    """Everything below a folder; git's own files count as `repositories`. A link is a file that says where it leads."""

    files: dict[str, bytes]
    folders: frozenset[str]
    repositories: dict[str, Repository | Unread]


def read(root: Path, before: State | None = None) -> State:
    """The state of `root`; `before` is what it was when it was built, None: it has just been."""
    found = list(_walk(root))
    repositories = {_name(root, path.parent): path.parent for path in found if path.name == ".git"}
    return State(
        files={_name(root, path): _content(path) for path in found if path.is_symlink() or path.is_file()},
        folders=frozenset(_name(root, path) for path in found if _is_folder(path) and path.name != ".git"),
        repositories={
            name: _repository(folder) if before is None else _repository_after(folder, before.repositories.get(name))
            for name, folder in repositories.items()
        },
    )


def expected(before: State, check: Check) -> State:
    """The state that a check asks for, where it was `before`.

    Raises:
        DataError: it names a branch that is not there.

    """
    gone = {path for path in (*before.files, *before.folders) if _is_below(path, check.absent)}
    files = {path: content for path, content in before.files.items() if path not in gone}
    files |= {path: text.encode() for path, text in check.files.items()}
    parents = {parent.as_posix() for path in (*files, *check.folders) for parent in Path(path).parents} - {"."}
    return State(
        files=files,
        folders=(before.folders - gone) | parents | set(check.folders),
        repositories={
            path: _changed(path, repository, check.repositories.get(path, RepositoryChanges()))
            for path, repository in before.repositories.items()
            if isinstance(repository, Repository)
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


def _repository_differences(
    path: str, wanted: Repository | Unread | None, found: Repository | Unread | None
) -> Iterator[str]:
    if wanted is None or found is None:
        yield f"the repository {path} is {'there' if wanted is None else 'not there'}"
    elif isinstance(found, Unread):
        yield f"{path}: the settings of its git are other ones"
    else:
        for what in ("branch", "branches", "status"):
            if (one := getattr(found, what)) != (other := getattr(wanted, what)):
                yield f"{path}: {what} {one}; expected {other}"


def _changed(path: str, before: Repository, changes: RepositoryChanges) -> Repository:
    try:
        branches = before.branches | {name: before.branches[base] for name, base in changes.created.items()}
        branches |= {name: (*messages, *branches[name]) for name, messages in changes.commits.items()}
    except KeyError as error:
        raise DataError(
            f"the check of {path}",
            found=f"the branch {error}",
            expected=listing(before.branches),
            fix="Name one of these, or one that is created.",
        ) from None
    return replace(
        before,
        branch=changes.branch or before.branch,
        branches=branches,
        status=before.status if changes.status is None else tuple(sorted(changes.status)),
    )


def _repository(folder: Path) -> Repository:
    names = git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()
    return Repository(
        branch=git(folder, "branch", "--show-current").strip() or None,
        branches={name: tuple(_messages(folder, name)) for name in names},
        status=tuple(sorted(git(folder, "status", "--porcelain", "--untracked-files=all").splitlines())),
        settings=_settings(folder),
    )


def _repository_after(folder: Path, before: Repository | Unread | None) -> Repository | Unread:
    known = isinstance(before, Repository) and _is_folder(folder / ".git") and before.settings == _settings(folder)
    return _repository(folder) if known else Unread()


def _settings(folder: Path) -> tuple[bytes | None, ...]:
    files = [folder / ".git" / name for name in _SETTINGS]
    return tuple(_content(file) if file.is_symlink() or file.is_file() else None for file in files)


def _messages(folder: Path, branch: str) -> Iterator[str]:
    for message in git(folder, "log", "-z", "--format=%B", branch, "--").split("\0"):
        if message:
            yield message.strip()


def _walk(root: Path) -> Iterator[Path]:
    """Everything below a folder; of `.git` only the folder itself."""
    for entry in sorted(root.iterdir()):
        yield entry
        if _is_folder(entry) and entry.name != ".git":
            yield from _walk(entry)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _content(path: Path) -> bytes:
    return f"→ {path.readlink()}".encode() if path.is_symlink() else path.read_bytes()


def _is_below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _shown(content: bytes) -> str:
    text = repr(content.decode(errors="replace"))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
