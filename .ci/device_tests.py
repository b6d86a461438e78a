"""Prints the test files that need nothing but what a device installs; on stderr the others, and what they need.

Usage: python .ci/device_tests.py FOLDER...
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SUPPORT: Final = ROOT / "tests" / "support"
TESTS: Final = {"pytest", "_pytest", "hypothesis", "dualtune_edge"}


def main() -> None:
    """Sort the files of the folders that are given."""
    installed = device() | TESTS | sys.stdlib_module_names
    for path in sorted(path for folder in sys.argv[1:] for path in Path(folder).rglob("test_*.py")):
        needed = set(imports(path)) - installed
        if needed:
            sys.stderr.write(f"needs {', '.join(sorted(needed))}: {path}\n")
        else:
            sys.stdout.write(f"{path} ")


def device() -> set[str]:
    """Import names of what requirements-device.txt lists for every system."""
    lines = (ROOT / "requirements-device.txt").read_text(encoding="utf-8").splitlines()
    return {re.split("[=;]", line)[0].replace("-", "_").lower() for line in lines if "==" in line and ";" not in line}


def imports(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, itself or by tests/support; `dualtune_edge.export`, which no device has."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if (support := SUPPORT / f"{name.partition('.')[0]}.py").is_file():
                yield from imports(support)
            else:
                yield "dualtune_edge.export" if name.startswith("dualtune_edge.export") else name.partition(".")[0]


if __name__ == "__main__":
    main()
