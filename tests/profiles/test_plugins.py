"""The packages of providers: absent, broken, without a device; the real one where it is installed."""

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualtune_edge.profiles import plugins
from dualtune_edge.profiles.plugins import OPENVINO, PLUGINS

PACKAGE = "onnxruntime-ep-openvino"
MODULE = "onnxruntime_ep_openvino"
SOURCE = """\
def get_ep_name():
    return "OpenVINOExecutionProvider"

def get_library_path():
    return {library!r}
"""


@pytest.fixture(autouse=True)
def asked_afresh() -> Iterator[None]:
    plugins.state.cache_clear()
    yield
    plugins.state.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of the provider's name that shadows a real one; its library is a text."""
    library = tmp_path / "library.so"
    library.write_text("no library", encoding="utf-8")
    (tmp_path / f"{MODULE}.py").write_text(SOURCE.format(library=str(library)), encoding="utf-8")
    information = tmp_path / f"{MODULE}-9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {PACKAGE}\nVersion: 9.9\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield tmp_path
    sys.modules.pop(MODULE, None)


def test_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    state = plugins.state(OPENVINO)
    assert state.problem == "the package onnxruntime-ep-openvino is not installed"
    assert state.fix == "Run: pip install onnxruntime-ep-openvino"
    assert state.devices == ()


@pytest.mark.usefixtures("package")
def test_a_library_that_does_not_load() -> None:
    state = plugins.state(OPENVINO)
    assert state.version == "9.9"
    assert state.problem.startswith("its library does not load: ")
    assert "library.so" in state.problem
    assert state.fix == "Run: pip install --force-reinstall onnxruntime-ep-openvino"


def test_a_package_that_does_not_import(package: Path) -> None:
    (package / f"{MODULE}.py").write_text("raise OSError('libtbb.so.12: not found')", encoding="utf-8")
    assert plugins.state(OPENVINO).problem == "its library does not load: libtbb.so.12: not found"


@pytest.mark.usefixtures("package")
def test_a_library_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda _name, _path: None)
    state = plugins.state(OPENVINO)
    assert state.problem == "onnxruntime-ep-openvino 9.9 finds no device that it runs on"
    assert state.fix == "It is for Intel's CPUs, GPUs and NPUs."


def test_a_provider_without_a_package() -> None:
    state = plugins.state("VitisAIExecutionProvider")
    assert (state.version, state.problem) == ("", "its package is on no package index")


def test_every_provider_that_a_profile_may_name_is_known() -> None:
    from typing import get_args

    from dualtune_edge.profiles.schema import CPU_PROVIDER, Provider

    assert set(get_args(Provider)) - {CPU_PROVIDER} <= {plugin.provider for plugin in PLUGINS}
