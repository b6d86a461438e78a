"""Let the kit's kinds of bundle do the tasks, and print the table of docs/kit-table.md: `make tasks`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from dualtune_edge_kit.training.measuring import specs

from checkable.gold import DATA
from checkable.servers import MCP, missing, search_path
from checkable.table import table
from dualtune_edge.export.run import run as export
from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.evaluate.tasks.evaluation import WantedTasks, do_tasks

_ALL = 1000


def _quiet(_words: str) -> None:
    """Say nothing."""


def main() -> int:
    """0: the table is printed; 2: a server is not installed."""
    if fault := missing():
        print(fault, file=sys.stderr)
        return 2
    os.environ["PATH"] = search_path()
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in filter(specs.trained, specs.METHODS):
            bundle = Path(folder) / method
            export(specs.spec(method, "external"), bundle)
            sides[method] = do_tasks(bundle, WantedTasks(DATA, MCP, _ALL, Policy()), _quiet, _quiet)
            print(f"{method}: {sides[method].groups[-1].done.right} done", file=sys.stderr)
    print("\n".join(table(sides)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
