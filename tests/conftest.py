"""A package that stands where OpenVINO's provider would, for the tests of two wings."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import pytest
from hypothesis import settings
from made_once import made_once

settings.register_profile("no deadline", deadline=None)  # a machine that does other work too is no fault
settings.load_profile("no deadline")

# PEFT imports bitsandbytes, which then compiles: 2 s of each process, and no test needs it.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

SKIPS: Final = "DUALTUNE_SKIPS"
PACKAGE: Final = "onnxruntime-ep-openvino"
MODULE: Final = "onnxruntime_ep_openvino"
SOURCE: Final = """\
def get_ep_name():
    return "OpenVINOExecutionProvider"

def get_library_path():
    return {library!r}
"""
Fault = Literal["absent", "broken", "failing", "deviceless"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test was skipped for a reason without a word of DUALTUNE_SKIPS: the CI sets it."""
    allowed, reporter = os.environ.get(SKIPS), session.config.pluginmanager.get_plugin("terminalreporter")
    if allowed is None or reporter is None:  # a worker of xdist has none
        return
    reasons = {report.longrepr[2] for report in reporter.stats.get("skipped", ()) if isinstance(report.longrepr, tuple)}
    if others := sorted(reason for reason in reasons if not any(word in reason for word in allowed.split())):
        reporter.write_line(f"skipped, and {SKIPS} does not name it: {'; '.join(others)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need an exported bundle as slow: the export alone takes longer than all others."""
    for item in items:
        if isinstance(item, pytest.Function) and {"exported", "kit_bundle"} & {*item.fixturenames}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the user's cache folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUALTUNE_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def imports_out_of_collections() -> None:
    """PyTorch's half a million objects are looked through by no collection: an export makes nine, of 0.3 s each.

    As the command line does (`toolkit.shell`). What the module before left behind is collected first.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kit_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in kit, exported as `dualtune-edge demo` does, its comparison included. No test may change it."""
    from dualtune_edge_kit import FOLDER

    from dualtune_edge.export.run import run
    from dualtune_edge.export.spec.document import read_spec

    spec = read_spec(FOLDER / "dualtune.yaml")
    return made_once("kit", lambda folder: run(spec, folder / "bundle"), tmp_path_factory) / "bundle"


@pytest.fixture
def openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Fault], None]]:
    """Have OpenVINO's package absent, its library no library, its import fail, or its library offer no device."""
    from dualtune_edge.profiles import plugins

    def install(fault: Fault) -> None:
        folder = tmp_path / "site"
        information = folder / f"{MODULE}-9.9.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Name: {PACKAGE}\nVersion: 9.9\n", encoding="utf-8")
        (folder / "library.so").write_text("no library", encoding="utf-8")
        source = SOURCE.format(library=str(folder / "library.so"))
        if fault == "failing":
            source = "raise OSError('libtbb.so.12: not found')"
        (folder / f"{MODULE}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, MODULE, raising=False)
        if fault == "absent":
            monkeypatch.setattr(importlib.metadata, "version", _not_found)
        import onnxruntime

        monkeypatch.setattr(onnxruntime, "get_ep_devices", list)  # the real package may be registered in this process
        if fault == "deviceless":
            monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda _name, _path: None)

    plugins.state.cache_clear()
    yield install
    sys.modules.pop(MODULE, None)
    plugins.state.cache_clear()


def _not_found(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


STATIC_PROFILE: Final = """\
name = "contoso-npu"
description = "Contoso's NPU"
architecture = "arm64"
features = []
provider = "QNNExecutionProvider"
device = "NPU"

[graph]
form = "static"
chunks = [1, 64]
kv_length = 512

[qnn]
soc_model = 9999
htp_arch = 73

[qdq]
weight_bits = 4
activation_bits = 16

[session]
"""


@pytest.fixture
def static_profile(tmp_path: Path) -> Path:
    """A profile with static graphs, for a SoC that is made up."""
    path = tmp_path / "contoso-npu.toml"
    path.write_text(STATIC_PROFILE, encoding="utf-8")
    return path
