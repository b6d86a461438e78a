"""Execution providers that come as packages of their own: found, registered with onnxruntime, and what is amiss.

A package has two functions, `get_ep_name` and `get_library_path`; onnxruntime loads the library and then lists its
devices. Only the packages named here are ever imported: a profile is data and cannot name a library.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Final

from dualtune_edge.profiles.detect import ep_devices
from dualtune_edge.profiles.schema import OPENVINO_PROVIDER, QNN_PROVIDER, EpDevice

OPENVINO: Final = OPENVINO_PROVIDER


@dataclass(frozen=True)
class Plugin:
    """A provider: the package that brings it (None: it is on no package index), and the devices it is for."""

    provider: str
    package: str | None
    runs_on: str


@dataclass(frozen=True)
class PluginState:
    """A provider on this machine. `problem` says in a few words why it cannot be used, `fix` what to do about it."""

    provider: str
    version: str = ""  # of the package; empty: not installed
    devices: tuple[EpDevice, ...] = ()
    problem: str = ""
    fix: str = ""


PLUGINS: Final = (
    Plugin(OPENVINO, "onnxruntime-ep-openvino", "Intel's CPUs, GPUs and NPUs"),
    Plugin(QNN_PROVIDER, "onnxruntime-qnn", "Qualcomm's NPUs"),
    Plugin("VitisAIExecutionProvider", None, "AMD's NPUs"),
)


def states() -> tuple[PluginState, ...]:
    """Every provider that this package knows of."""
    return tuple(state(plugin.provider) for plugin in PLUGINS)


@functools.cache  # what is installed stays the same while a process runs
def state(provider: str) -> PluginState:
    """Register a provider's library, if its package is installed; whether the provider can be used, or why not."""
    plugin = next(plugin for plugin in PLUGINS if plugin.provider == provider)
    if plugin.package is None:
        return _without_package(provider)
    try:
        version = importlib.metadata.version(plugin.package)
    except importlib.metadata.PackageNotFoundError:
        problem = f"the package {plugin.package} is not installed"
        return PluginState(provider, problem=problem, fix=f"Run: pip install {plugin.package}")
    try:
        devices = _register(plugin.package)
    except Exception as error:  # noqa: BLE001 - foreign code, and onnxruntime's errors share no base class
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = f"Run: pip install --force-reinstall {plugin.package}"
        return PluginState(provider, version, problem=f"its library does not load: {said}", fix=fix)
    if not devices:
        problem = f"{plugin.package} {version} finds no device that it runs on"
        return PluginState(provider, version, problem=problem, fix=f"It is for {plugin.runs_on}.")
    return PluginState(provider, version, devices)


def _without_package(provider: str) -> PluginState:
    """A provider that comes inside its maker's own build of onnxruntime."""
    import onnxruntime  # noqa: PLC0415 - a tenth of a second that only this needs

    if provider in onnxruntime.get_available_providers():
        problem = "this onnxruntime has it built in, and graphs are not compiled for it"
        return PluginState(provider, onnxruntime.__version__, problem=problem, fix="The CPU provider runs here.")
    problem = "its package is on no package index: it comes with AMD's Ryzen AI software"
    return PluginState(provider, problem=problem, fix="Graphs are not compiled for it: the CPU provider runs here.")


def _register(package: str) -> tuple[EpDevice, ...]:
    """The devices of the package's provider, once its library is loaded."""
    module = importlib.import_module(package.replace("-", "_"))
    name = module.get_ep_name()
    _load(name, module.get_library_path())
    return _devices(name)


@functools.cache  # onnxruntime refuses a second registration, of a library without devices too
def _load(name: str, library: str) -> None:
    """Register a library with onnxruntime, unless the program that embeds this one has done it."""
    import onnxruntime  # noqa: PLC0415 - a tenth of a second that only this needs

    if not _devices(name):
        onnxruntime.register_execution_provider_library(name, library)


def _devices(name: str) -> tuple[EpDevice, ...]:
    """The devices that onnxruntime lists for a provider; none: it is not registered, or nothing here suits it."""
    return tuple(device for device in ep_devices() if device.provider == name)
