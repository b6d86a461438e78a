"""Let a bundle, and another one, do the tasks of a file on the servers of a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.config import read_config
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.runtime.bench.requests import spread
from dualtune_edge.runtime.evaluate.tasks.report import TaskSide, task_side
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


def do_tasks(
    bundle: Path, wanted: WantedTasks, on_step: Callable[[str], None], on_note: Callable[[str], None]
) -> TaskSide:
    """Let a bundle do the tasks, each with servers of its own in a folder that holds its world alone.

    Args:
        bundle: its folder.
        wanted: the tasks.
        on_step: is called with the name of each step before it begins.
        on_note: is called with each tool of the tasks' toolsets that cannot be called, and why.

    Raises:
        DataError: no tasks, a world that cannot be built, or a toolset that the bundle lacks.
        SpecError: no servers, or none for a toolset.
        ToolsError: no tool of a toolset can be called: its server does not start, or is another one.

    """
    from dualtune_edge.runtime.agent.servers import Servers  # noqa: PLC0415 - the extra `agent`: conversations need none

    read = read_tasks(wanted.path)
    tasks = read.model_copy(update={"tasks": tuple(spread(read.tasks, wanted.count))})
    with (
        tempfile.TemporaryDirectory(prefix="tasks-", ignore_cleanup_errors=True) as folder,
        Agent.open(bundle, profile=wanted.profile, threads=wanted.threads) as agent,
    ):
        sandbox = Sandbox(Path(folder).resolve())
        configs = sandbox.placed(read_config(wanted.mcp, sandbox.environment()))
        _refuse_unknown(tasks, wanted, [entry.toolset.name for entry in agent.bundle.manifest.toolsets], list(configs))
        with Servers(configs) as servers:
            asked = {name for task in tasks.tasks for name in task.toolsets}
            for note in notes_of(servers.offer(agent.bundle.manifest), asked):
                on_note(note)
        desk = Desk(agent, lambda: Servers(configs), SandboxApprover(sandbox, wanted.policy))
        results = []
        for number, task in enumerate(tasks.tasks, start=1):
            on_step(f"{bundle.name}: task {number} of {len(tasks.tasks)}, {task.name}")
            results.append(desk.do(task, tasks.world(task)))
        return task_side(bundle.name, agent.bundle.hashes[MANIFEST], results)


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
