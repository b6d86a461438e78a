"""A task of two steps on the real git server: in a temporary repository, with a check of what it leaves behind."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from dualtune_edge.runtime.agent import Policy, PolicyApprover, RunLimits, run
from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.agent.transcript import extended
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message, user

_SERVER: Final = "mcp-server-git"
_REPOSITORY: Final = "notes/garden"  # below the temporary folder, in which the server works
_FILE: Final = "maps.txt"
_MESSAGE: Final = "Draw the coast"
TASK: Final = f"stage {_FILE} in {_REPOSITORY}, then make a commit in {_REPOSITORY} saying '{_MESSAGE}'"
_LIMITS: Final = RunLimits(steps=6, seconds=60.0, answer_tokens=64)


class Step(Frozen):
    """A call that was made, and the first line of its result."""

    toolset: str
    tool: str
    arguments: dict[str, Any]
    result: str


class Finding(Frozen):
    """One line of the check."""

    what: str
    right: bool


class TaskReport(Frozen):
    """What was done. `not_run` says why nothing was; then there are neither steps nor findings."""

    task: str = TASK
    not_run: str = ""
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()


def do_task(agent: Agent) -> TaskReport:
    """Let the agent do the task, all of whose calls are allowed, and check the repository."""
    server = _server()
    if fault := _missing(server):
        return TaskReport(not_run=fault)
    assert server is not None  # noqa: S101 - `_missing` says so where it is None
    from dualtune_edge.runtime.agent.servers import Servers  # noqa: PLC0415 - it needs the extra `agent`

    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / _REPOSITORY
        _begin(repository)
        config = ServerConfig(command=server, cwd=Path(folder))
        messages: tuple[Message, ...] = (user(TASK),)
        with Servers({"git": config}) as servers:
            if "git" not in (offer := servers.offer(agent.bundle.manifest)).tools:
                return TaskReport(not_run="; ".join(offer.notes))
            for event in run(agent, messages, servers, PolicyApprover(Policy(default="allow")), limits=_LIMITS):
                messages = extended(messages, event)
        return TaskReport(steps=_steps(messages), findings=_findings(repository))


def _server() -> str | None:
    """The server's executable: beside this interpreter, or on the path."""
    return shutil.which(_SERVER, path=str(Path(sys.executable).parent)) or shutil.which(_SERVER)


def _missing(server: str | None) -> str:
    """What has to be installed first, and how; empty where nothing has to be."""
    if importlib.util.find_spec("mcp") is None:
        return "there is no package mcp; run: pip install 'dualtune-edge[agent]'"
    if server is None:
        return f"there is no {_SERVER}; run: pip install {_SERVER}"
    return "" if shutil.which("git") else "there is no git; install it"


def _begin(repository: Path) -> None:
    """A repository with one commit, and one file that is not in it."""
    repository.mkdir(parents=True)
    _git(repository, "init", "-q")
    _git(repository, "config", "user.name", "Demo")
    _git(repository, "config", "user.email", "demo@localhost")
    (repository / "README.md").write_text("A garden by the sea.\n", encoding="utf-8")
    _git(repository, "add", "README.md")
    _git(repository, "-c", "commit.gpgsign=false", "commit", "-q", "-m", "Begin")
    (repository / _FILE).write_text("cliffs in the north\n", encoding="utf-8")


def _findings(repository: Path) -> tuple[Finding, ...]:
    messages = _git(repository, "log", "--format=%s").splitlines()
    files = _git(repository, "show", "--format=", "--name-only", "HEAD").split()
    return (
        Finding(what=f"the commits are {', '.join(reversed(messages))}", right=messages == [_MESSAGE, "Begin"]),
        Finding(what=f"the newest one holds {', '.join(files)}", right=files == [_FILE]),
        _clean(_git(repository, "status", "--porcelain").splitlines()),
    )


def _clean(left: list[str]) -> Finding:
    return Finding(what=f"left to commit: {', '.join(left) or 'nothing'}", right=not left)


def _steps(messages: tuple[Message, ...]) -> tuple[Step, ...]:
    """The calls of a conversation, each with the result that follows it."""
    calls = [
        (message.tool_calls[0].function, messages[index + 1])
        for index, message in enumerate(messages)
        if message.tool_calls
    ]
    return tuple(
        Step(toolset="git", tool=call.name, arguments=call.arguments, result=_first_line(result.content))
        for call, result in calls
    )


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")  # noqa: S603 - our own
    return done.stdout
