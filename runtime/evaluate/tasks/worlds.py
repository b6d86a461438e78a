"""Write where a task starts, and ask git: the user's own settings change neither a status nor a commit's hash."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.evaluate.tasks.task import Step, World
from dualtune_edge.toolkit.errors import DataError

GIT_ENVIRONMENT: Final[Mapping[str, str]] = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_FIRST_DAY: Final = 1  # commits are made at noon of 1 March 2024 and the days after it


def build(root: Path, world: World) -> None:
    """Make `root` hold the world and nothing else. The folder itself stays: servers work in it.

    Raises:
        DataError: git cannot do a repository's steps, or a path cannot be written.

    """
    try:
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
    except OSError as error:
        raise DataError(
            str(error.filename or root),
            found=error.strerror or str(error),
            expected="a world whose files and folders can be written",
            fix="Check its paths: one may stand for a file and a folder.",
        ) from None


def git(folder: Path, *arguments: str, day: int = _FIRST_DAY) -> str:
    """What git prints. Commits are Ada's, at noon of a day in March 2024.

    Raises:
        DataError: git is not installed, or fails.

    """
    when = f"2024-03-{day:02}T12:00:00+00:00"
    environment = {**os.environ, **GIT_ENVIRONMENT, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        found = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise DataError(
            f"git {' '.join(arguments)}, in {folder}",
            found=found,
            expected="a repository as the world describes it",
            fix="Check the world's steps, and that git is installed.",
        ) from None
    return done.stdout


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


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
