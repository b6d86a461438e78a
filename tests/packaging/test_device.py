"""The wheel on a device: nothing can be imported but what requirements-device.txt lists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from dualtune_edge import cli

ROOT = Path(__file__).parents[2]
DEVICE = """
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
installed = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "").lower()]
sys.meta_path[:] = [Absent(), *installed]
sys.path.insert(0, {wheel!r})
"""
EVERY_MODULE = """
for name in ("toolkit", "profiles", "runtime"):
    wing = importlib.import_module(f"dualtune_edge.{name}")
    assert wing.__file__.startswith(sys.path[0]), wing.__file__
    for module in pkgutil.walk_packages(wing.__path__, f"dualtune_edge.{name}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error.name)
"""
TRUST = """\
format = "dualtune-edge-trust"
version = 1
[[keys]]
name = "release"
public_key = ""
"""
COMMAND = """
from dualtune_edge.cli import main
main(sys.argv[1:])
"""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def absent() -> set[str]:
    """Import names of all that is installed here, and not on a device."""
    lines = (ROOT / "requirements-device.txt").read_text(encoding="utf-8").splitlines()
    listed = {plain(line.partition("=")[0]) for line in lines if not line.startswith("#")}
    owners = metadata.packages_distributions().items()
    return {module for module, names in owners if not listed & set(map(plain, names))} - {
        "dualtune_edge",
        "dualtune_edge_kit",
    }


def on_device(code: str, absent: set[str], wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DEVICE.format(absent=absent, wheel=str(wheel)) + code, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_every_module_of_its_wings_is_imported_but_those_of_extras(
    absent: set[str], unpacked: Path, modules: Callable[[str], set[str]]
) -> None:
    result = on_device(EVERY_MODULE, absent, unpacked)
    assert result.stderr == ""
    missing = dict(line.split() for line in result.stdout.splitlines())
    extras = {
        "agent": "runtime.agent",
        "serve": "runtime.serve",
        "genai": "runtime.engines.genai_engine",
        "trust": "runtime.trust",
    }
    for module, package in missing.items():
        assert any(
            module.startswith(f"dualtune_edge.{folder}") and package in modules(extra)
            for extra, folder in extras.items()
        ), f"{module} needs {package}"
    assert missing["dualtune_edge.runtime.engines.genai_engine"] == "onnxruntime_genai"


def test_in_a_checkouts_root_the_installed_package_is_found(absent: set[str], unpacked: Path) -> None:
    code = f"sys.path[:] = [{str(ROOT)!r}, {str(unpacked)!r}, *sys.path[2:]]\nimport dualtune_edge.runtime as wing"
    result = on_device(f"{code}\nprint(wing.__file__)", absent, unpacked)
    assert result.stdout.strip() == str(unpacked / "dualtune_edge" / "runtime" / "__init__.py"), result.stderr


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_its_help(name: str, absent: set[str], unpacked: Path) -> None:
    result = on_device(COMMAND, absent, unpacked, name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: dualtune-edge" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("export", "{desk}/dualtune.yaml", "-o", "{desk}/out"), "pip install 'dualtune-edge[export]'"),
        (("verify", "{desk}", "--profile", "qnn-x-elite"), "pip install 'dualtune-edge[export]'"),
        (("trace", "{desk}", "-o", "{desk}/out"), "pip install 'dualtune-edge[export-optimum]'"),
        (("demo",), "pip install ./kit"),
        (("inspect", "{desk}", "--trust", "{desk}/trust.toml"), "pip install 'dualtune-edge[trust]'"),
        (("sign", "{desk}", "--key", "{desk}/key.pem"), "pip install 'dualtune-edge[sign]'"),
    ],
)
def test_what_it_cannot_do_names_what_to_install(
    arguments: tuple[str, ...], fix: str, absent: set[str], unpacked: Path, tmp_path: Path
) -> None:
    for name in ("dualtune.yaml", "model.sig"):
        (tmp_path / name).touch()
    (tmp_path / "trust.toml").write_text(TRUST, encoding="utf-8")
    given = (argument.format(desk=tmp_path) for argument in arguments)
    result = on_device(COMMAND, absent, unpacked, *given)
    assert result.returncode == 15
    assert fix in result.stderr
