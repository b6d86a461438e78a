"""The two real servers: where they are installed, and how they are started in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from checkable.state import GIT_ENVIRONMENT
from dualtune_edge.runtime.agent.config import ServerConfig

_TOOLS: Final = Path(__file__).resolve().parents[3] / ".tools"
_FOLDERS: Final = {
    "filesystem": (_TOOLS / "filesystem-server" / "node_modules" / ".bin", "mcp-server-filesystem"),
    "git": (_TOOLS / "git-server" / "bin", "mcp-server-git"),
}
# Commits of a task are equal from run to run, and so are their hashes in results.
_COMMIT_DATE: Final = "1711972800 +0000"  # 1 April 2024, in the one form that GitPython and git both read


def missing() -> str:
    """What is not installed and what installs it; empty where nothing is missing."""
    names = [command for name, (_, command) in _FOLDERS.items() if _command(name) is None]
    return f"{' and '.join(names)} not found; run: make servers" if names else ""


def configs(root: Path) -> dict[str, ServerConfig]:
    """Both servers, working in `root`: relative paths are below it.

    Raises:
        FileNotFoundError: one is not installed.

    """
    if fault := missing():
        raise FileNotFoundError(fault)
    dates = {"GIT_AUTHOR_DATE": _COMMIT_DATE, "GIT_COMMITTER_DATE": _COMMIT_DATE}
    return {
        "filesystem": ServerConfig(command=_command("filesystem"), args=(str(root),), cwd=root),
        "git": ServerConfig(command=_command("git"), cwd=root, env={**GIT_ENVIRONMENT, **dates}),
    }


def _command(name: str) -> str | None:
    """The server's executable: in `.tools/`, or else on the path."""
    folder, command = _FOLDERS[name]
    return shutil.which(command, path=str(folder)) or shutil.which(command)
