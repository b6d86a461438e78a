"""Each task's own calls on the real servers: its check passes after the last of them, and not before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets

from checkable.gold import DATA, run_gold
from dualtune_edge.runtime.agent.servers import Servers
from dualtune_edge.runtime.evaluate.tasks.task import Task, read_tasks
from dualtune_edge.toolkit.tools.tool_files import read_tools

TASKS = read_tasks(DATA)


@pytest.mark.parametrize("task", TASKS.tasks, ids=lambda task: task.name)
def test_a_check_passes_after_all_gold_calls_and_fails_before(servers: Servers, root: Path, task: Task) -> None:
    *earlier, last = run_gold(servers, root, TASKS, task)
    assert last == ()
    assert all(earlier), "it passes with a call left out"


@pytest.mark.parametrize("name", toolsets.NAMES)
def test_the_servers_list_the_tools_that_the_kit_was_made_for(servers: Servers, name: str) -> None:
    live = servers._connections[name].listing()(10.0, None)
    assert not isinstance(live, str), live
    kit = read_tools(FOLDER / "servers" / f"{name}.json")
    assert {tool.name: tool.tool for tool in live} == {tool.name: tool for tool in kit}
    hints = json.loads((FOLDER / "servers" / f"{name}.json").read_text(encoding="utf-8"))["tools"]
    assert {tool.name for tool in live if tool.read_only} == {
        tool["name"] for tool in hints if tool["annotations"]["readOnlyHint"]
    }
