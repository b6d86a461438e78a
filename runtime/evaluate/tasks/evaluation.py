"""Let a bundle, and another one, do the tasks of a file on the servers of a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.config import ServerConfig, read_config
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.runtime.bench.requests import spread
from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation, TaskSide, compare_tasks, task_side
from dualtune_edge.runtime.evaluate.tasks.running import Desk, SandboxApprover, notes_of
from dualtune_edge.runtime.evaluate.tasks.task import Tasks, read_tasks
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.bundle.layout import MANIFEST
from dualtune_edge.toolkit.errors import DataError, SpecError
from dualtune_edge.toolkit.validation import listing


@dataclass(frozen=True)
class WantedTasks:
    """What is to be done, and how: at most `count` of the tasks in `path`, on the servers in `mcp`."""

    path: Path
    mcp: Path
    count: int
    policy: Policy
    profile: str | None = None
    threads: int | None = None


def evaluate_tasks(
    bundle: Path,
    other: Path | None,
    wanted: WantedTasks,
    on_step: Callable[[str], None],
    on_note: Callable[[str], None],
) -> TaskEvaluation:
    """Let one bundle or two do the tasks, each with servers of its own in a folder that holds its world alone.

    Args:
        bundle: ours.
        other: what it is compared with.
        wanted: the tasks.
        on_step: is called with the name of each step before it begins.
        on_note: is called with each tool of the tasks' toolsets that cannot be called, and why.

    Raises:
        DataError: no tasks, a world that cannot be built, or a toolset that a bundle lacks.
        SpecError: no servers, or none for a toolset.
        ToolsError: no tool of a toolset can be called: its server does not start, or is another one.

    """
    read = read_tasks(wanted.path)
    tasks = read.model_copy(update={"tasks": tuple(spread(read.tasks, wanted.count))})
    ours = _side(bundle, tasks, wanted, on_step, on_note)
    against = compare_tasks(ours, _side(other, tasks, wanted, on_step, on_note)) if other else None
    return TaskEvaluation(tasks=wanted.path.name, ours=ours, against=against)


def _side(
    path: Path,
    tasks: Tasks,
    wanted: WantedTasks,
    on_step: Callable[[str], None],
    on_note: Callable[[str], None],
) -> TaskSide:
    from dualtune_edge.runtime.agent.servers import Servers  # noqa: PLC0415 - the extra `agent`: conversations need none

    with (
        tempfile.TemporaryDirectory(prefix="tasks-", ignore_cleanup_errors=True) as folder,
        Agent.open(path, profile=wanted.profile, threads=wanted.threads) as agent,
    ):
        sandbox = Sandbox(Path(folder).resolve())
        configs = _configs(wanted.mcp, sandbox)
        _refuse_unknown(tasks, wanted, [entry.toolset.name for entry in agent.bundle.manifest.toolsets], list(configs))
        with Servers(configs) as servers:
            asked = {name for task in tasks.tasks for name in task.toolsets}
            for note in notes_of(servers.offer(agent.bundle.manifest), asked):
                on_note(note)
        desk = Desk(agent, lambda: Servers(configs), SandboxApprover(sandbox, wanted.policy))
        results = []
        for number, task in enumerate(tasks.tasks, start=1):
            on_step(f"{path.name}: task {number} of {len(tasks.tasks)}, {task.name}")
            results.append(desk.do(task, tasks.world(task)))
        return task_side(path.name, agent.bundle.hashes[MANIFEST], results)


def _configs(mcp: Path, sandbox: Sandbox) -> dict[str, ServerConfig]:
    """The servers, which work in the sandbox unless they say where."""
    return {
        name: config.model_copy(update={"cwd": config.cwd or sandbox.path}) if config.command else config
        for name, config in read_config(mcp, sandbox.environment()).items()
    }


def _refuse_unknown(tasks: Tasks, wanted: WantedTasks, toolsets: Sequence[str], servers: Sequence[str]) -> None:
    for task in tasks.tasks:
        for name in task.toolsets:
            if name not in toolsets:
                raise DataError(
                    f"{wanted.path}, {task.name}, toolsets",
                    found=name,
                    expected=listing(toolsets),
                    fix="Name toolsets of the bundle.",
                )
            if name not in servers:
                raise SpecError(
                    str(wanted.mcp),
                    found=f"no server {name}, which {task.name} needs",
                    expected="a server for each toolset of the tasks",
                    fix="Add it, under the toolset's name.",
                )
