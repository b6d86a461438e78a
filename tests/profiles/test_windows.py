import struct
import sys

import pytest
from archspec.cpu.detect import CpuidInfoCollector

from dualtune_edge.profiles import linux, windows
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.windows import Core, GroupMask


def record(*masks: tuple[int, int], relationship: int = 0, efficiency: int = 0) -> bytes:
    """One SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX; masks are (group, mask)."""
    body = struct.pack("<BB20xH", 1, efficiency, len(masks)) + b"".join(
        struct.pack("<QH6x", mask, group) for group, mask in masks
    )
    return struct.pack("<II", relationship, 8 + len(body)) + body


def test_cores_with_two_threads_and_with_one() -> None:
    buffer = record((0, 0b11)) + record((0, 0b1100)) + record((0, 0b10000))
    assert windows.parse_cores(buffer) == (
        Core((GroupMask(0, 0b11),), 0),
        Core((GroupMask(0, 0b1100),), 0),
        Core((GroupMask(0, 0b10000),), 0),
    )
    assert windows.count(windows.parse_cores(buffer), affinity=0) == (3, 5, 3)


def test_the_fastest_cores_are_those_of_the_highest_efficiency_class() -> None:
    cores = windows.parse_cores(record((0, 0b11), efficiency=1) + record((0, 0b100)) + record((0, 0b1000)))
    assert windows.count(cores, affinity=0) == (3, 4, 1)
    assert windows.count(cores, affinity=0b1100) == (2, 2, 2)  # kept from the fast one, the others are the fastest


def test_records_of_another_relationship_are_passed_over() -> None:
    assert windows.parse_cores(record((0, 1), relationship=3) + record((1, 2))) == (Core((GroupMask(1, 2),), 0),)


def test_affinity_keeps_cores_and_threads_away() -> None:
    cores = windows.parse_cores(record((0, 0b11)) + record((0, 0b1100)))
    assert windows.count(cores, affinity=0b0001) == (1, 1, 1)
    assert windows.count(cores, affinity=0b0111) == (2, 3, 2)


@pytest.mark.skipif(
    sys.platform != "linux" or detect().architecture != "x86_64", reason="needs /proc/cpuinfo of x86-64"
)
def test_cpuid_agrees_with_the_kernel_on_what_profiles_ask_for() -> None:
    names = {"avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
    assert CpuidInfoCollector().features & names == set(linux.read_cpu().features) & names
