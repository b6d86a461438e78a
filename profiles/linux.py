"""The CPU as Linux describes it, in text files: /proc, sysfs for the topology, cgroup (version 2) for quotas.

In a chroot or a locked-down container some of them cannot be read. What they would have said is left at a default.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from dualtune_edge.profiles.schema import Cpu

_INFO: Final = Path("/proc/cpuinfo")
_MEMORY: Final = Path("/proc/meminfo")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")
_TOPOLOGY: Final = Path("/sys/devices/system/cpu")
_FASTEST: Final = Path("/sys/devices/cpu_core/cpus")  # Intel's performance cores, where there are two kinds


def read_cpu() -> Cpu:
    """The CPU of this machine, as far as this process may use it."""
    info, allowed = _table(_read(_INFO)), _allowed()
    quota = cpu_quota(_of_groups("cpu.max")) or len(allowed)
    fastest = [cpu for cpu in allowed if cpu in _fastest(allowed)]
    return Cpu(
        name=info.get("model name", ""),
        features=cpu_features(info),
        physical_cores=min(physical_cores(_siblings(allowed)), quota),
        logical_cores=min(len(allowed), quota),
        performance_cores=min(physical_cores(_siblings(fastest or allowed)), quota),
        memory=memory_bytes(_table(_read(_MEMORY))),
        unread="" if cpu_features(info) else f"{_INFO} lists no features of the CPU",
    )


def read_free_memory() -> int | None:
    """Bytes of memory that this process can still get, without swap; None: the system does not say."""
    free = memory_bytes(_table(_read(_MEMORY)), "MemAvailable")
    limits = _of_groups("memory.max"), _of_groups("memory.current"), _of_groups("memory.stat")
    left = group_room(zip(*limits, strict=True))
    return min((size for size in (free, left) if size is not None), default=None)


def cpu_list(text: str) -> tuple[int, ...]:
    """Logical CPUs of a list as Linux writes it: "0-2,8" → 0, 1, 2, 8."""
    ranges = (part.partition("-") for part in text.split(","))
    return tuple(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))


def cpu_features(processor: Mapping[str, str]) -> tuple[str, ...]:
    """The flags of one processor's block of /proc/cpuinfo: `flags` on x86, `Features` on arm64."""
    return tuple(sorted(processor.get("flags", processor.get("Features", "")).split()))


def physical_cores(siblings: Mapping[int, str]) -> int:
    """Cores behind logical CPUs; `siblings` holds each one's `thread_siblings_list` ("" where sysfs has none)."""
    return len({text.strip() or f"cpu{cpu}" for cpu, text in siblings.items()})


def memory_bytes(memory: Mapping[str, str], key: str = "MemTotal") -> int | None:
    """A value of /proc/meminfo; None: it says nothing."""
    kilobytes = memory.get(key, "").removesuffix(" kB")
    return int(kilobytes) * 1024 if kilobytes.isdecimal() else None


def group_room(levels: Iterable[tuple[str, str, str]]) -> int | None:
    """Bytes that the tightest cgroup leaves; None: unlimited.

    Args:
        levels: of each group `memory.max`, `memory.current` and `memory.stat`. The kernel takes the files' pages that
            it holds back for want of room, so they count as free.

    """
    rooms = []
    for limit, current, stat in levels:
        files = dict(line.partition(" ")[::2] for line in stat.splitlines()).get("inactive_file", "0")
        if limit.strip().isdecimal() and current.strip().isdecimal():
            rooms.append(max(0, int(limit) - int(current) + int(files)))
    return min(rooms, default=None)


def cpu_quota(texts: Iterable[str]) -> int | None:
    """The tightest `cpu.max` ("200000 100000": 200 ms in each 100 ms) in whole CPUs, rounded up; None: unlimited."""
    quotas = [
        math.ceil(int(quota) / int(period))
        for quota, _, period in (text.strip().partition(" ") for text in texts)
        if quota.isdecimal() and period.isdecimal()
    ]
    return max(1, min(quotas)) if quotas else None


def _table(text: str) -> dict[str, str]:
    """The first block of a file of `key: value` lines; of /proc/cpuinfo that is the first processor."""
    lines = (line.partition(":") for line in text.strip().split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _read(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _allowed() -> tuple[int, ...]:
    """The logical CPUs that this process may run on."""
    if sys.platform != "linux":
        return tuple(range(os.cpu_count() or 1))
    return tuple(sorted(os.sched_getaffinity(0)))


def _siblings(cpus: Iterable[int]) -> dict[int, str]:
    return {cpu: _read(_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list") for cpu in cpus}


def _fastest(allowed: tuple[int, ...]) -> tuple[int, ...]:
    """The logical CPUs of the fastest kind; all, where the kernel names no kinds."""
    try:
        return cpu_list(_read(_FASTEST).strip())
    except ValueError:  # nothing is there, or no list
        return allowed


def _of_groups(name: str) -> list[str]:
    """The file `name` of this process's cgroup (version 2) and of every one above it; empty where it cannot be read."""
    lines = _read(_MEMBERSHIP).splitlines()
    group = next((PurePosixPath(line.removeprefix("0::")) for line in lines if line.startswith("0::/")), None)
    if group is None:
        return []
    return [_read(_GROUPS / level.relative_to("/") / name) for level in (group, *group.parents)]
