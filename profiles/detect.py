"""What this machine has: CPU, features, cores, memory, and the devices that onnxruntime's providers offer.

One module an operating system; each keeps its parsing apart from its reading, so every parser is tested everywhere.
"""

from __future__ import annotations

import os
import platform
from typing import Final

from dualtune_edge.profiles import linux, macos, windows
from dualtune_edge.profiles.schema import Cpu, EpDevice, Machine

_READERS: Final = {"Linux": linux.read_cpu, "Darwin": macos.read_cpu, "Windows": windows.read_cpu}
_FREE: Final = {"Linux": linux.read_free_memory, "Windows": windows.read_free_memory}
_ARCHITECTURES: Final = {"amd64": "x86_64", "aarch64": "arm64"}  # the names of Windows and Linux; else as it comes


def detect() -> Machine:
    """This machine. On a system without a reader, only the number of logical cores is known."""
    system, machine = platform.system(), platform.machine().lower()
    reader = _READERS.get(system, _unknown_cpu)
    return Machine(system=system, architecture=_ARCHITECTURES.get(machine, machine), cpu=reader())


def free_memory() -> int | None:
    """Bytes of memory that this process can still get; None: this system is not asked."""
    reader = _FREE.get(platform.system())
    return reader() if reader else None


def ep_devices() -> tuple[EpDevice, ...]:
    """The devices that `onnxruntime.get_ep_devices()` lists."""
    import onnxruntime  # noqa: PLC0415 - a tenth of a second that only this list needs

    return tuple(
        EpDevice(provider=row.ep_name, kind=row.device.type.name, vendor=row.device.vendor)
        for row in onnxruntime.get_ep_devices()
    )


def _unknown_cpu() -> Cpu:
    count = os.cpu_count() or 1
    return Cpu(
        name="",
        features=(),
        physical_cores=count,
        logical_cores=count,
        performance_cores=count,
        memory=None,
        unread=f"{platform.system() or 'this system'} is not asked for the features of its CPU",
    )
