"""Packed weights on huge pages: every token reads all of them, and pages of 4 KB cost a look-up each.

onnxruntime takes its memory from malloc, which Linux backs with small pages unless it is asked for others. The packed
weights of a 0.5B model are 100,000 of those, far more than a CPU remembers the addresses of. Nothing but the speed
depends on it, so what the system cannot do is left out. Windows gives huge pages to privileged accounts only;
macOS gives none, and has pages of 16 KB.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

_Region: TypeAlias = tuple[int, int]  # first address, and the one behind the last
_MAPS: Final = Path("/proc/self/maps")
_ANONYMOUS: Final = re.compile(r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) rw.p \S+ \S+ 0 *")
_PAGE: Final = 2 << 20  # bytes of a huge page, of x86-64 and of arm64 with pages of 4 KB
_SMALLEST: Final = 32 << 20  # bytes: the weights of a model for which it matters lie in larger regions
_STEP: Final = 16 << 20  # bytes moved at once
_SPEED: Final = 1e9  # bytes a second; where it is slower the rest stays where it is
# Advice of asm-generic/mman-common.h: take huge pages from now on; and, of Linux 6.1, move what is there already.
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


@contextlib.contextmanager
def huge_pages() -> Iterator[None]:
    """Move large regions of memory that are taken inside to huge pages. 0.5 s a GB, and never more than 1 s a GB."""
    before = set(_regions())
    yield
    taken = set(_regions()) - before
    deadline = time.monotonic() + sum(end - start for start, end in taken) / _SPEED
    for start, end in taken:
        for at in range(start, end, _STEP):
            if time.monotonic() > deadline:  # memory is in small pieces, and Linux has to make room page by page
                return
            _move(at, min(at + _STEP, end))


def _regions() -> Iterator[_Region]:
    """Large anonymous regions of this process, as far as whole huge pages go."""
    if sys.platform != "linux":
        return
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for match in filter(None, map(_ANONYMOUS.fullmatch, lines)):
        start = -(-int(match["start"], 16) // _PAGE) * _PAGE
        end = int(match["end"], 16) // _PAGE * _PAGE
        if end - start >= _SMALLEST:
            yield start, end


def _move(start: int, end: int) -> None:
    """What fails, for want of memory in one piece or of a newer Linux, leaves small pages behind."""
    madvise = ctypes.CDLL(None).madvise
    for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)
