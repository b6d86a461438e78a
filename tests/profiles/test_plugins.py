"""The packages of providers: absent, broken, without a device."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import onnxruntime
import pytest

from dualtune_edge.profiles import plugins
from dualtune_edge.profiles.plugins import OPENVINO, PLUGINS
from dualtune_edge.profiles.schema import CPU_PROVIDER, Provider

VITISAI = "VitisAIExecutionProvider"
PACKAGE = "onnxruntime-ep-openvino"


@pytest.mark.parametrize(
    ("fault", "version", "problem", "fix"),
    [
        ("absent", "", f"the package {PACKAGE} is not installed", f"Run: pip install {PACKAGE}"),
        ("broken", "9.9", "its library does not load: ", f"Run: pip install --force-reinstall {PACKAGE}"),
        (
            "failing",
            "9.9",
            "its library does not load: libtbb.so.12: not found",
            f"Run: pip install --force-reinstall {PACKAGE}",
        ),
        (
            "deviceless",
            "9.9",
            f"{PACKAGE} 9.9 finds no device that it runs on",
            "It is for Intel's CPUs, GPUs and NPUs.",
        ),
    ],
)
def test_what_is_amiss_is_told_with_what_to_do(
    openvino: Callable[[str], None], fault: str, version: str, problem: str, fix: str
) -> None:
    openvino(fault)
    state = plugins.state(OPENVINO)
    assert (state.version, state.devices, state.fix) == (version, (), fix)
    assert state.problem.startswith(problem)
    if fault == "broken":
        assert "library.so" in state.problem


def test_a_provider_without_a_package() -> None:
    plugins.state.cache_clear()
    state = plugins.state(VITISAI)
    assert (state.version, state.devices) == ("", ())
    assert state.problem.startswith("its package is on no package index")
    assert "the CPU provider runs here" in state.fix


def test_a_provider_that_is_built_in_is_found_and_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [VITISAI, CPU_PROVIDER])
    plugins.state.cache_clear()
    state = plugins.state(VITISAI)
    plugins.state.cache_clear()
    assert state.version == onnxruntime.__version__
    assert "has it built in" in state.problem


def test_every_provider_that_a_profile_may_name_is_known() -> None:
    assert set(get_args(Provider)) - {CPU_PROVIDER} <= {plugin.provider for plugin in PLUGINS}


@dataclass(frozen=True)
class HardwareDevice:
    type: enum.Enum
    vendor: str = "Contoso"


@dataclass(frozen=True)
class ListedDevice:
    ep_name: str
    device: HardwareDevice


class Registry:
    """onnxruntime's list of registered libraries, which refuses a name that it has."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.names: list[str] = []

    def register(self, name: str, _library: str) -> None:
        if name in self.names:
            raise RuntimeError(f"EP library is already registered under {name}")
        self.names.append(name)

    def devices(self) -> list[ListedDevice]:
        kinds = enum.Enum("Kind", [(name, name) for name in ("CPU", "NPU")])
        return [ListedDevice(name, HardwareDevice(kinds[kind])) for name in self.names for kind in self.kinds]


@pytest.mark.parametrize(
    ("kinds", "earlier"), [((), False), (("CPU",), False), (("CPU",), True), (("CPU", "NPU"), True)]
)
def test_a_library_is_registered_once_in_a_process(
    openvino: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], *, earlier: bool
) -> None:
    openvino("deviceless")
    registry = Registry(*kinds)
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", registry.register)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", registry.devices)
    if earlier:
        registry.register(OPENVINO, "library.so")
    for _ in range(3):
        plugins.state.cache_clear()
        assert tuple(device.kind for device in plugins.state(OPENVINO).devices) == kinds
        assert "does not load" not in plugins.state(OPENVINO).problem
