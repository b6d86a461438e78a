"""What this machine has left: disk where an output goes, memory, and how fast one of its cores is."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Final

import psutil

_CGROUP: Final = Path("/sys/fs/cgroup")  # version 2, as a container sees its own


def free_disk(path: Path) -> int:
    """Bytes that can be written below the nearest folder that is there."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def free_memory() -> int:
    """Bytes that this process can still take: the machine's with its swap, or what a container's limit leaves."""
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return min(machine, _container(machine))


def resident() -> int:
    """Bytes of memory that this process has now."""
    size: int = psutil.Process().memory_info().rss
    return size


def hash_speed() -> float:
    """Bytes a second that one core hashes: the best of some tries, a few ms in all."""
    data, best = bytes(1 << 21), 0.0
    for _ in range(5):
        start = time.perf_counter()
        hashlib.sha256(data).digest()
        best = max(best, len(data) / (time.perf_counter() - start))
    return best


def _container(otherwise: int) -> int:
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))  # or "max"
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        cached = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return otherwise
    return max(0, limit - used + cached)
