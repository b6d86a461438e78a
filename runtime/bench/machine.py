"""What the figures depend on: memory bandwidth, resident memory, and the versions of what runs."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from dualtune_edge.toolkit.frozen import Frozen

_ROLLUP: Final = Path("/proc/self/smaps_rollup")
_READ_BYTES: Final = 256 * 1024**2  # beyond every cache of a laptop
_READS: Final = 7
_PACKAGES: Final = ("dualtune-edge", "onnxruntime", "onnxruntime-genai", "llguidance", "tokenizers", "numpy")


class Memory(Frozen):
    """Resident bytes of this process: `anonymous` is its own, `file` is mapped and shared with others."""

    anonymous: int
    file: int


def read_memory() -> Memory | None:
    """This process's memory as Linux counts it; None on other systems."""
    try:
        return rollup(_ROLLUP.read_text(encoding="ascii"))
    except OSError:
        return None


def rollup(text: str) -> Memory:
    """The memory that an `smaps_rollup` file lists."""
    fields = (line.split() for line in text.splitlines() if line.endswith(" kB"))
    kilobytes = {words[0].removesuffix(":"): int(words[1]) for words in fields}
    anonymous = kilobytes["Anonymous"]
    return Memory(anonymous=1024 * anonymous, file=1024 * (kilobytes["Rss"] - anonymous))


def bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read from memory: the best of several sums over 256 MiB.

    It is what numpy reaches; a kernel with better prefetching may read a little faster.
    """
    parts = np.array_split(np.ones(_READ_BYTES // 8, dtype=np.uint64), threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:  # numpy's loops release the interpreter's lock
        for _ in range(_READS):
            start = time.perf_counter()
            list(pool.map(np.sum, parts))
            seconds.append(time.perf_counter() - start)
    return _READ_BYTES / min(seconds)


def versions() -> Mapping[str, str]:
    """Of Python and of those packages that a call may run through and that are installed."""
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in _PACKAGES if name in installed}}
