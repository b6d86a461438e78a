"""The CPU as Windows describes it: kernel32 and the registry through ctypes and winreg, cpuid through archspec.

kernel32 knows no flag for AVX-VNNI or AVX512-VNNI, so on x86-64 the features come from the cpuid instruction.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from dualtune_edge.profiles.schema import Cpu

_RELATION_PROCESSOR_CORE: Final = 0
_ARM_FEATURES: Final = {43: "asimddp", 66: "i8mm"}  # winnt.h: PF_ARM_V82_DP_…, PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE
_CPU_KEY: Final = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


@dataclass(frozen=True)
class GroupMask:
    """Logical processors of one processor group, as a bit mask."""

    group: int
    mask: int


@dataclass(frozen=True)
class Core:
    """A core: its logical processors, and its efficiency class (the higher, the faster)."""

    masks: tuple[GroupMask, ...]
    efficiency: int


def parse_cores(buffer: bytes) -> tuple[Core, ...]:
    """The cores in a buffer of `SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX` records.

    A record: relationship (uint32), its own size (uint32), flags and efficiency class (2 bytes), 20 reserved bytes,
    the number of masks (uint16), then 16 bytes a mask: KAFFINITY (uint64), group (uint16), 6 reserved bytes.
    """
    return tuple(_records(buffer))


def count(cores: Iterable[Core], affinity: int) -> tuple[int, int, int]:
    """Physical, logical and fastest physical cores that a process may use; `affinity` 0: it spans groups, all are."""
    bits = [(core, [part.mask & affinity if affinity else part.mask for part in core.masks]) for core in cores]
    usable = [(core, masks) for core, masks in bits if any(masks)]
    fastest = max((core.efficiency for core, _ in usable), default=0)
    return (
        len(usable),
        sum(mask.bit_count() for _, masks in usable for mask in masks),
        sum(core.efficiency == fastest for core, _ in usable),
    )


def _records(buffer: bytes) -> Iterator[Core]:
    offset = 0
    while offset < len(buffer):
        relationship, size = struct.unpack_from("<II", buffer, offset)
        if relationship == _RELATION_PROCESSOR_CORE:
            (masks,) = struct.unpack_from("<H", buffer, offset + 30)
            pairs = (struct.unpack_from("<QH", buffer, offset + 32 + 16 * index) for index in range(masks))
            yield Core(tuple(GroupMask(group=group, mask=mask) for mask, group in pairs), buffer[offset + 9])
        offset += size


if sys.platform == "win32":
    import ctypes
    import platform
    import winreg
    from ctypes import wintypes

    from archspec.cpu.detect import detected_info

    _KERNEL32: Final = ctypes.WinDLL("kernel32", use_last_error=True)
    _KERNEL32.GetCurrentProcess.restype = wintypes.HANDLE

    class _MemoryStatus(ctypes.Structure):
        """MEMORYSTATUSEX."""

        _fields_ = (
            ("length", wintypes.DWORD),
            ("load", wintypes.DWORD),
            ("total_physical", ctypes.c_uint64),
            ("free_physical", ctypes.c_uint64),
            ("others", ctypes.c_uint64 * 5),
        )

    def read_cpu() -> Cpu:
        """The CPU of this machine, as far as this process may use it."""
        physical, logical, fastest = count(parse_cores(_core_records()), _affinity())
        return Cpu(
            name=_name(),
            features=_arm_features() if platform.machine() == "ARM64" else tuple(sorted(detected_info().features)),
            physical_cores=physical,
            logical_cores=logical,
            performance_cores=fastest,
            memory=int(_memory().total_physical),
        )

    def read_free_memory() -> int | None:
        """Bytes of memory that nothing uses."""
        return int(_memory().free_physical)

    def _core_records() -> bytes:
        size = wintypes.DWORD(0)
        ask = _KERNEL32.GetLogicalProcessorInformationEx
        ask(_RELATION_PROCESSOR_CORE, None, ctypes.byref(size))  # fails, and writes the size
        buffer = ctypes.create_string_buffer(size.value)
        if not ask(_RELATION_PROCESSOR_CORE, buffer, ctypes.byref(size)):
            raise ctypes.WinError(ctypes.get_last_error())
        return buffer.raw[: size.value]

    def _affinity() -> int:
        process, system = ctypes.c_size_t(0), ctypes.c_size_t(0)
        handle = wintypes.HANDLE(_KERNEL32.GetCurrentProcess())
        if not _KERNEL32.GetProcessAffinityMask(handle, ctypes.byref(process), ctypes.byref(system)):
            raise ctypes.WinError(ctypes.get_last_error())
        return process.value

    def _memory() -> _MemoryStatus:
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if not _KERNEL32.GlobalMemoryStatusEx(ctypes.byref(status)):
            raise ctypes.WinError(ctypes.get_last_error())
        return status

    def _arm_features() -> tuple[str, ...]:
        present = _KERNEL32.IsProcessorFeaturePresent
        return tuple(name for number, name in _ARM_FEATURES.items() if present(wintypes.DWORD(number)))

    def _name() -> str:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _CPU_KEY) as key:
            value, _ = winreg.QueryValueEx(key, "ProcessorNameString")
        return str(value).strip()

else:

    def read_cpu() -> Cpu:
        """Stands here so that the table in `detect` names one function on every system."""
        raise NotImplementedError("this is not Windows")

    def read_free_memory() -> int | None:
        """As `read_cpu`."""
        raise NotImplementedError("this is not Windows")
