"""Large memory moves to huge pages, and stays what it was."""

from __future__ import annotations

import mmap
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dualtune_edge.runtime.engines import huge_pages as module
from dualtune_edge.runtime.engines.huge_pages import huge_pages

SIZE = 64 << 20
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_bytes() -> int:
    """Of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("AnonHugePages:"))


def can_move() -> bool:
    """Linux 6.1 or newer, with huge pages switched on."""
    if sys.platform != "linux" or not ENABLED.exists() or "[never]" in ENABLED.read_text(encoding="utf-8"):
        return False
    return tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 1)


@pytest.mark.slow
@pytest.mark.skipif(not can_move(), reason="no huge pages on this system")
def test_what_was_taken_inside_moves_and_keeps_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPEED", 1.0)  # no deadline
    before = huge_bytes()
    with huge_pages():
        memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        values = np.frombuffer(memory, np.int32)
        values[:] = np.arange(len(values))
        small = huge_bytes()
        assert small - before < SIZE // 2
    assert huge_bytes() > small  # how much depends on how much of the memory lies in one piece
    np.testing.assert_array_equal(values, np.arange(len(values)))


KEPT = "10000000-20000000 rw-p 00000000 00:00 0 \n"
OTHERS = """\
30000000-31000000 rw-p 00000000 00:00 0
40000000-50000000 r--p 00000000 00:00 0
50000000-60000000 rw-p 00000000 fe:00 2601 /a/file
60000000-70000000 rw-p 00000000 00:00 0 [heap]
no map
"""


@pytest.mark.parametrize(
    ("after", "moved"),
    [
        (None, []),
        (KEPT, []),
        (KEPT + OTHERS, []),
        (
            KEPT + "7f0000100000-7f00023ff000 rw-p 00000000 00:00 0\n",
            [(0x7F0000200000, 0x7F0001200000), (0x7F0001200000, 0x7F0002200000)],
        ),
    ],
)
def test_only_large_anonymous_memory_that_is_new_is_moved(
    after: str | None, moved: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, found = tmp_path / "maps", []
    maps.write_text(KEPT, encoding="utf-8")
    monkeypatch.setattr(module, "_MAPS", maps)
    monkeypatch.setattr(module, "_move", lambda start, end: found.append((start, end)))
    monkeypatch.setattr(module, "_SPEED", 1.0)  # no deadline
    monkeypatch.setattr(sys, "platform", "linux")
    with huge_pages():
        maps.unlink()
        if after is not None:
            maps.write_text(after, encoding="utf-8")
    assert found == moved


def test_it_stops_where_room_must_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    regions, found = iter([[], [(0, 1 << 30)]]), []
    clock = iter([10.0, 10.5, 11.0, 11.5])  # the region's time is 1.07 s
    monkeypatch.setattr(module, "_regions", lambda: next(regions))
    monkeypatch.setattr(module, "_move", lambda start, end: found.append((start, end)))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with huge_pages():
        pass
    assert found == [(0, 16 << 20), (16 << 20, 32 << 20)]
