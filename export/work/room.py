"""The free disk and memory of this machine, and the speed of one of its cores."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Final

import psutil

_CGROUP: Final = Path("/sys/fs/cgroup")  # version 2, as a container sees its own


def free_disk(path: Path) -> int:
    """Bytes that can be written to a path, by the nearest folder that exists."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(folder).free


def free_memory() -> int:
    """Bytes that this process can still take: free memory and swap, or less where a container has a limit."""
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return min(machine, _container(machine))


def resident() -> int:
    """Resident memory of this process, in bytes."""
    size: int = psutil.Process().memory_info().rss
    return size


def hash_speed() -> float:
    """Bytes a second that one core hashes: the best of five tries, in a few ms."""
    data, best = bytes(1 << 21), 0.0
    for _ in range(5):
        start = time.perf_counter()
        hashlib.sha256(data).digest()
        best = max(best, len(data) / (time.perf_counter() - start))
    return best


def _container(machine: int) -> int:
    """Bytes that the container's limit leaves; without a limit, those of the machine."""
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))  # or "max"
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        cached = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return machine
    return max(0, limit - used + cached)
