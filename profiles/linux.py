"""The CPU as Linux tells of it, in text files: /proc, sysfs for the topology, cgroup (version 2) for quotas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from dualtune_edge.profiles.schema import Cpu


def read_cpu() -> Cpu:
    """The CPU of this machine, as far as this process may use it."""
    info, status, memory = (_table(_read(name)) for name in ("/proc/cpuinfo", "/proc/self/status", "/proc/meminfo"))
    allowed = cpu_list(status["Cpus_allowed_list"])
    quota = cpu_quota(_quota_files()) or len(allowed)
    fastest = [cpu for cpu in allowed if cpu in _fastest(allowed)]
    return Cpu(
        name=info.get("model name", ""),
        features=cpu_features(info),
        physical_cores=min(physical_cores(_siblings(allowed)), quota),
        logical_cores=min(len(allowed), quota),
        performance_cores=min(physical_cores(_siblings(fastest or allowed)), quota),
        memory=int(memory["MemTotal"].removesuffix(" kB")) * 1024,
    )


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


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _siblings(cpus: Iterable[int]) -> dict[int, str]:
    files = {cpu: Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in cpus}
    return {cpu: file.read_text(encoding="ascii") if file.exists() else "" for cpu, file in files.items()}


def _fastest(allowed: tuple[int, ...]) -> tuple[int, ...]:
    """The logical CPUs of Intel's performance cores; all, where the kernel does not tell two kinds apart."""
    file = Path("/sys/devices/cpu_core/cpus")
    return cpu_list(file.read_text(encoding="ascii").strip()) if file.is_file() else allowed


def _quota_files() -> list[str]:
    """`cpu.max` of this process's cgroup (version 2) and of every one above it."""
    mounts, membership = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    if not membership.exists():
        return []
    lines = membership.read_text(encoding="utf-8").splitlines()
    own = next((PurePosixPath(line.removeprefix("0::")) for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    folders = [mounts / level.relative_to("/") for level in (own, *own.parents)]
    return [(folder / "cpu.max").read_text(encoding="ascii") for folder in folders if (folder / "cpu.max").is_file()]
