"""The tasks of `data/`, and their own calls made on the real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dualtune_edge.runtime.agent.servers import Servers
from dualtune_edge.runtime.evaluate.tasks.running import OfferedServers, check_faults
from dualtune_edge.runtime.evaluate.tasks.state import read
from dualtune_edge.runtime.evaluate.tasks.task import Task, Tasks
from dualtune_edge.runtime.evaluate.tasks.worlds import build

DATA: Final = Path(__file__).resolve().parent.parent / "data"


def run_gold(servers: Servers, root: Path, tasks: Tasks, task: Task) -> Iterator[tuple[str, ...]]:
    """What the check finds wrong before the first gold call, and after each of them."""
    build(root, tasks.world(task))
    before, tools, placed = read(root), OfferedServers(servers, task.toolsets), task.at(root)
    yield tuple(check_faults(placed.check, root, before, tools.texts, ""))
    for gold in placed.gold:
        outcome = tools.call(gold.toolset, gold.tool, gold.arguments)
        assert not outcome.error, f"{task.name}: {gold.call}: {outcome.text}"
        yield tuple(check_faults(placed.check, root, before, tools.texts, ""))
