"""Counts and figures of the hostile suites: few by default, a tenth of the counts in CI, all by `make hostile`.

A test tells what it tried by the fixture `figure`. The figures end the run as a table, which docs/security.md holds.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import tiny_bundle
from made_once import made_once

COUNTS: Final = "DUALTUNE_EDGE_HOSTILE"  # "full": all counts; "tenth": a tenth, or another part
_FEW: Final = 5  # a fifth of that, where nothing is said
_KEY: Final = "hostile figure"
Figure = Callable[[str, str], None]


@pytest.fixture(scope="session")
def share() -> Callable[..., int]:
    """Of a full count, what this run tries."""
    said = os.environ.get(COUNTS)
    fewer = 1 if said == "tenth" else _FEW

    def tried(count: int, part: int = 10) -> int:
        return count if said == "full" else max(2, count // (part * fewer))

    return tried


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Tell a promise and what was tried of it."""
    return lambda promise, tried: record_property(_KEY, (promise, tried))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("passed", [])
    rows = [tuple(value) for report in reports for key, value in report.user_properties if key == _KEY]
    if rows:
        terminalreporter.section("what the hostile runs tried")
        machine = f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
        terminalreporter.write_line(f"On {machine}, {os.cpu_count()} cores.")
        for promise, tried in sorted(rows):
            terminalreporter.write_line(f"| {promise} | {tried} |")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder; tests that change it take `bundle`."""
    return made_once("desk", tiny_bundle.export_bundle, tmp_path_factory) / "bundle"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture(scope="session")
def failing_io(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of failing_io.c, to be preloaded."""
    library = tmp_path_factory.mktemp("library") / "failing_io.so"
    source = Path(__file__).with_name("failing_io.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)  # noqa: S607
    return library
