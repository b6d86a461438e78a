"""The memory of this process: the most that it took, and what is given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Iterator
from typing import Final

import psutil

_MMAP_THRESHOLD: Final = -3  # mallopt's M_MMAP_THRESHOLD
_MAPPED: Final = 1 << 20  # bytes from which on a block is mapped by itself, where large ones come and go
_USUAL: Final = 32 << 20  # what glibc's own threshold rises to, once blocks of this size were freed
_INTERVAL: Final = 0.05  # seconds between two samples


def give_back() -> None:
    """Collect cycles, and let glibc return free memory: 0.9 GB after a graph of 7B's width was built.

    Other C libraries are left alone.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.contextmanager
def no_holes() -> Iterator[None]:
    """Inside the block, glibc maps every block of 1 MB or more by itself, and unmaps it when it is freed.

    Small blocks that stay split what a layer's activations leave, so that the next layer's find no room there: 15 MB a
    layer of a 0.5B model, for a prompt of 700 tokens. Mapping costs page faults, which quantizing would feel.
    """
    _map_from(_MAPPED)
    try:
        yield
    finally:
        _map_from(_USUAL)


def _map_from(size: int) -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, size)


class PeakMemory:
    """The largest resident memory of the process since the last reset, sampled every few ms."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Sample no more."""
        self._stopped.set()
        self._thread.join()

    def reset(self) -> None:
        """Forget what was before."""
        self._peak = 0
        self._sample()

    def peak(self) -> int:
        """Bytes."""
        self._sample()
        return self._peak

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            self._sample()

    def _sample(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)
