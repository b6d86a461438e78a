"""A bundle runs no code and reaches nothing: a library with a canary is never loaded, only named files are opened."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_bundle

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.errors import AdapterError, EdgeError

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the libraries"),
]
CANARY = '#include <stdio.h>\n__attribute__((constructor)) static void sing(void) {{ fclose(fopen("{sung}", "w")); }}\n'
CALL = """
import sys
from dualtune_edge.runtime.pipeline import Agent
with Agent.open(sys.argv[1]) as agent:
    for text in ("read a file", "show the log", "list the roots"):
        agent.call(text)
"""
# Where onnxruntime-genai and onnxruntime take a library from.
PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "session options": lambda config, path: options(config).update(custom_ops_library=path),
    "a provider's library": lambda config, path: options(config).update(
        provider_options=[{"evil": {"library_path": path}}]
    ),
    "OpenVINO's extensions": lambda config, path: options(config).update(
        provider_options=[{"OpenVINO": {"custom_op_library": path}}]
    ),
    "QNN's backend": lambda config, path: options(config).update(provider_options=[{"QNN": {"backend_path": path}}]),
    "config entries": lambda config, path: options(config).update({"config_entries": {"session.custom_ops": path}}),
    "the model": lambda config, path: config["model"].update(custom_ops_library=path),
    "the root": lambda config, path: config.update(custom_ops_library=path),
    "the decoder": lambda config, path: config["model"]["decoder"].update(filename=path),
}


def options(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["model"]["decoder"].setdefault("session_options", {})
    return found


@pytest.fixture
def canary(tmp_path: Path) -> tuple[Path, Path]:
    """A library, and the file that is there once it was loaded."""
    source, library, sung = tmp_path / "canary.c", tmp_path / "canary.so", tmp_path / "sung"
    source.write_text(CANARY.format(sung=sung), encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)  # noqa: S607
    return library, sung


def test_no_library_is_loaded(bundle: Path, canary: tuple[Path, Path], figure: Callable[[str, str], None]) -> None:
    library, sung = canary
    path = bundle / "model" / "genai_config.json"
    whole = path.read_bytes()
    for name in (str(library), "canary.so", "./canary.so"):
        if name != str(library):
            shutil.copy(library, bundle / "model" / "canary.so")
        for apply in PLACES.values():
            config = json.loads(whole)
            apply(config, name)
            path.write_text(json.dumps(config), encoding="utf-8")
            if name != str(library):
                tiny_bundle.change_manifest(bundle, list_the_library)
            tiny_bundle.reseal(bundle)
            with pytest.raises(EdgeError):
                Agent.open(bundle).close()
            assert not sung.exists()
    figure("A bundle cannot run code", f"{3 * len(PLACES)} libraries in genai_config: all refused, none loaded")


def list_the_library(manifest: dict[str, Any]) -> None:
    if not any(file["path"] == "model/canary.so" for file in manifest["files"]):
        manifest["files"].append({**manifest["files"][0], "path": "model/canary.so"})
        manifest["files"].sort(key=lambda file: file["path"])


class Canary:
    """Pickled, it writes a file once it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_is_not_read(exported: Path, tmp_path: Path, name: str) -> None:
    adapter = shutil.copytree(exported.parent / "chooser", tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / name).write_bytes(pickle.dumps(Canary(str(tmp_path / "sung"))))
    with pytest.raises(AdapterError):
        read_adapter(adapter, read_checkpoint(exported.parent / "base"), "external")
    assert not (tmp_path / "sung").exists()


def test_calls_connect_nowhere_and_open_named_files_only(
    exported: Path, failing_io: Path, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    log, cache = tmp_path / "log", tmp_path / "cache"
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {
        "LD_PRELOAD": str(failing_io), "FAILING_IO_LOG": str(log), "DUALTUNE_EDGE_CACHE": str(cache),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", CALL, str(exported)], env=environment, check=True, cwd=tmp_path)
    lines = [line.partition(" ")[::2] for line in log.read_text(encoding="utf-8").splitlines()]
    assert not [path for what, path in lines if what == "connects"]
    written = {path for what, path in lines if what == "writes"}
    allowed = (str(cache), "/dev/", "/proc/self")
    assert not {path for path in written if not path.startswith(allowed)}
    packages = {str(Path(path).resolve()) for path in (*sys.path, sys.prefix, sys.base_prefix) if path}
    project = str(Path(__file__).parents[2])
    system = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib", "/run/")
    named = (str(exported), str(cache), project, sys.prefix, *packages, *system)
    read = {path for what, path in lines if what == "reads" and path.startswith("/")}
    others = {path for path in read if not path.startswith(named) and not str(Path(path).resolve()).startswith(named)}
    assert not others
    figure(
        "Silent and offline",
        f"3 calls, CI unset: no connection; {len(written)} files written, all in the cache; {len(read)} read, all of "
        "the bundle, the cache, the packages or the system",
    )
