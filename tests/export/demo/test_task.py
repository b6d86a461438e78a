"""The demo's task without a model: what is missing is named, and the check of the repository can fail."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.export.demo import task

NOBODY: Any = None  # an agent that is not asked


@pytest.mark.parametrize(
    ("package", "command", "expected"),
    [
        ("mcp", None, "there is no package mcp; run: pip install 'dualtune-edge[agent]'"),
        (None, "mcp-server-git", "there is no mcp-server-git; run: pip install mcp-server-git"),
        (None, "git", "there is no git; install it"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_done(
    package: str | None, command: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == command else f"/bin/{name}")  # noqa: ARG005
    assert task.do_task(NOBODY) == task.TaskReport(not_run=expected)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "garden"
    task._begin(path)
    return path


def right(repository: Path) -> list[bool]:
    return [finding.right for finding in task._findings(repository)]


def test_the_check_fails_where_nothing_was_done(repository: Path) -> None:
    assert right(repository) == [False, False, False]


def test_the_check_passes_where_the_commit_was_made(repository: Path) -> None:
    task._git(repository, "add", "maps.txt")
    assert right(repository) == [False, False, False]
    task._git(repository, "commit", "-q", "-m", "Draw the coast")
    assert right(repository) == [True, True, True]


def test_the_check_notices_another_message_and_another_file(repository: Path) -> None:
    (repository / "more.txt").write_text("x", encoding="utf-8")
    task._git(repository, "add", "more.txt")
    task._git(repository, "commit", "-q", "-m", "Draw the coast")
    assert right(repository) == [True, False, False]
    task._git(repository, "add", "maps.txt")
    task._git(repository, "commit", "-q", "-m", "Draw it")
    assert right(repository) == [False, True, True]
