"""What pyproject.toml and the two lists of pins say."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
WINGS: Final = ("toolkit", "profiles", "runtime", "export")
IGNORED: Final = shutil.ignore_patterns("__pycache__", ".*")
IMPORT_NAMES: Final = {
    "opentelemetry_api": "opentelemetry",
    "opentelemetry_exporter_otlp_proto_http": "opentelemetry",
    "opentelemetry_sdk": "opentelemetry",
    "pykcs11": "PyKCS11",
    "pyopenssl": "OpenSSL",
    "pyyaml": "yaml",
}


@pytest.fixture(scope="session")
def pyproject() -> dict[str, Any]:
    """Its value."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def modules(pyproject: dict[str, Any]) -> Callable[[str], set[str]]:
    """The import names of what an extra lists; of the device's own packages for ''."""

    def of(extra: str) -> set[str]:
        project = pyproject["project"]
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        names = (re.split(r"[<>=!;\[ ]", line, maxsplit=1)[0].replace("-", "_").lower() for line in lines)
        return {IMPORT_NAMES.get(name, name) for name in names}

    return of


@pytest.fixture(scope="session")
def build_side(modules: Callable[[str], set[str]]) -> set[str]:
    """Import names of what the build side needs, and no device."""
    return modules("export") - modules("") - modules("genai")


@pytest.fixture(scope="session")
def imported() -> Callable[[str], set[str]]:
    """The top-level names that a wing's files import, anywhere in them."""

    def of(wing: str) -> set[str]:
        return {name for path in (ROOT / wing).rglob("*.py") for name in _imports(path)}

    return of


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel of a copy: a build folder that lies about could put old files into it."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in ("dualtune_edge", *WINGS):
        shutil.copytree(ROOT / folder, copy / folder, ignore=IGNORED)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, copy]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="session")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder, to be put on the path."""
    folder = tmp_path_factory.mktemp("unpacked")
    wheel.extractall(folder)
    return folder


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
