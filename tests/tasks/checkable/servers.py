"""The two real servers: where they are installed, and how they are started in a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.agent.config import ServerConfig, read_config

# Commits of a task are equal from run to run, and so are their hashes in results: this file sets the date.
MCP: Final = Path(__file__).resolve().parent.parent / "mcp.json"
_TOOLS: Final = Path(__file__).resolve().parents[3] / ".tools"
_FOLDERS: Final = (_TOOLS / "filesystem-server" / "node_modules" / ".bin", _TOOLS / "git-server" / "bin")
_COMMANDS: Final = ("mcp-server-filesystem", "mcp-server-git")


def search_path() -> str:
    """`PATH` with the folders of the servers before the rest."""
    return os.pathsep.join((*map(str, _FOLDERS), os.environ.get("PATH", "")))


def missing() -> str:
    """What is not installed and what installs it; empty where nothing is missing."""
    names = [command for command in _COMMANDS if _found(command) is None]
    return f"{' and '.join(names)} not found; run: make servers" if names else ""


def configs(root: Path) -> dict[str, ServerConfig]:
    """Both servers, working in `root`: relative paths are below it.

    Raises:
        FileNotFoundError: one is not installed.

    """
    if fault := missing():
        raise FileNotFoundError(fault)
    return {
        name: config.model_copy(update={"command": _found(str(config.command)), "cwd": root})
        for name, config in read_config(MCP, {"SANDBOX": str(root)}).items()
    }


def _found(command: str) -> str | None:
    """The server's executable: in `.tools/`, or else on the path."""
    return shutil.which(command, path=search_path())
