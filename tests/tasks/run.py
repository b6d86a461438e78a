"""Let a bundle do the tasks on the real servers: `python tests/tasks/run.py BUNDLE [--only NAME] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from checkable.running import TaskResult, run_task
from checkable.servers import configs, missing
from checkable.task import read_tasks
from dualtune_edge.runtime import Agent
from dualtune_edge.runtime.agent.servers import Servers

_FAULT_WIDTH = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """0: the tasks were run, whatever came of them; 2: they could not be."""
    asked = _arguments(arguments)
    tasks = read_tasks()
    chosen = [task for task in tasks.tasks if not asked.only or task.name in asked.only]
    unknown = set(asked.only) - {task.name for task in chosen}
    if fault := f"no task {unknown.pop()}" if unknown else missing():
        print(fault, file=sys.stderr)
        return 2
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="tasks-") as folder,
        Agent.open(asked.bundle) as agent,
        Servers(configs(Path(folder).resolve())) as servers,
    ):
        for note in servers.offer(agent.bundle.manifest).notes:
            print(f"note: {note}", file=sys.stderr)
        for task in chosen:
            results.append(run_task(agent, servers, Path(folder).resolve(), tasks, task))
            print(results[-1].model_dump_json() if asked.json else _row(results[-1]), flush=True)
    totals = json.dumps(_totals(results)) if asked.json else "\n".join(_summary(results))
    print(totals)
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this task; repeatable")
    parser.add_argument("--json", action="store_true", help="print each task's result as a JSON line, totals last")
    return parser.parse_args(arguments)


def _row(result: TaskResult) -> str:
    """Task, ok, calls, why not."""
    why = "" if result.ok else _why(result)
    return f"{'✓' if result.ok else '✗'} {result.task:<32} {len(result.calls)} of {result.gold}  {why}".rstrip()


def _why(result: TaskResult) -> str:
    fault = result.faults[0]
    ended = "" if result.outcome == "answered" else f"{result.outcome}; "
    text = f"{ended}{fault}"
    return text if len(text) <= _FAULT_WIDTH else f"{text[:_FAULT_WIDTH]}…"


def _groups(results: Sequence[TaskResult]) -> dict[str, list[TaskResult]]:
    """The rows of the summary."""
    groups = {
        "one call": [result for result in results if result.gold == 1],
        "two calls": [result for result in results if result.gold == 2],
        "three or four calls": [result for result in results if result.gold > 2],
    }
    for toolsets in dict.fromkeys(result.toolsets for result in results):
        groups[" and ".join(toolsets)] = [result for result in results if result.toolsets == toolsets]
    return groups | {"all": list(results)}


def _totals(results: Sequence[TaskResult]) -> dict[str, dict[str, int]]:
    return {
        name: {
            "tasks": len(group),
            "done": sum(result.ok for result in group),
            "gold_calls": sum(result.gold for result in group),
            "gold_calls_made": sum(result.matched for result in group),
            "calls": sum(len(result.calls) for result in group),
        }
        for name, group in _groups(results).items()
        if group
    }


def _summary(results: Sequence[TaskResult]) -> list[str]:
    lines = ["", "| tasks | done | right calls made | calls made |", "|---|---:|---:|---:|"]
    for name, total in _totals(results).items():
        done = f"{total['done']} of {total['tasks']}"
        lines.append(f"| {name} | {done} | {total['gold_calls_made']} of {total['gold_calls']} | {total['calls']} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
