"""Let a bundle do the tasks on the real servers: `python tests/tasks/run.py BUNDLE [--only NAME] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from checkable.running import TaskResult, run_tasks
from checkable.servers import missing
from checkable.task import read_tasks
from checkable.totals import totals

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
    for result in run_tasks(asked.bundle, tasks, chosen):
        results.append(result)
        print(result.model_dump_json() if asked.json else _row(result), flush=True)
    counted = {name: total.model_dump() for name, total in totals(results).items()}
    print(json.dumps(counted) if asked.json else "\n".join(_summary(results)))
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


def _summary(results: Sequence[TaskResult]) -> list[str]:
    lines = ["", "| tasks | done | right calls made | calls made |", "|---|---:|---:|---:|"]
    for name, total in totals(results).items():
        done, made = f"{total.done} of {total.tasks}", f"{total.gold_calls_made} of {total.gold_calls}"
        lines.append(f"| {name} | {done} | {made} | {total.calls} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
