"""The packages of providers: absent, broken, without a device."""

from collections.abc import Callable
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
