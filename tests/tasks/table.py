"""Let the kit's three kinds of bundle do the tasks, and print the table of docs/kit-table.md: `make tasks`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from dualtune_edge_kit.training import specs

from checkable.running import run_tasks
from checkable.servers import missing
from checkable.task import read_tasks
from checkable.totals import table
from dualtune_edge.export.run import run as export


def main() -> int:
    """0: the table is printed; 2: a server is not installed."""
    if fault := missing():
        print(fault, file=sys.stderr)
        return 2
    tasks, results = read_tasks(), {}
    with tempfile.TemporaryDirectory() as folder:
        for method in filter(specs.trained, specs.METHODS):
            bundle = Path(folder) / method
            export(specs.spec(method, "external"), bundle)
            results[method] = list(run_tasks(bundle, tasks, tasks.tasks))
            print(f"{method}: {sum(result.ok for result in results[method])} done", file=sys.stderr)
    print("\n".join(table(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
