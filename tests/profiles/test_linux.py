import os
import sys
from pathlib import Path

import pytest

from dualtune_edge.profiles import linux

X86 = {"model name": "AMD EPYC", "flags": "fpu avx2 fma avx512_vnni"}
ARM = {"CPU implementer": "0x41", "Features": "fp asimd asimddp i8mm"}


def test_features_of_x86_and_arm_stand_under_different_keys() -> None:
    assert linux.cpu_features(X86) == ("avx2", "avx512_vnni", "fma", "fpu")
    assert linux.cpu_features(ARM) == ("asimd", "asimddp", "fp", "i8mm")
    assert linux.cpu_features({}) == ()


@pytest.mark.parametrize(("text", "cpus"), [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("0-1,8,10-11", (0, 1, 8, 10, 11))])
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert linux.cpu_list(text) == cpus


def test_two_threads_of_one_core_count_once() -> None:
    siblings = {0: "0,4\n", 4: "0,4\n", 1: "1,5\n", 5: "1,5\n"}
    assert linux.physical_cores(siblings) == 2


def test_only_allowed_threads_count() -> None:
    assert linux.physical_cores({4: "0,4\n"}) == 1


def test_without_sysfs_every_logical_cpu_counts_as_a_core() -> None:
    assert linux.physical_cores({0: "", 1: "", 2: ""}) == 3


@pytest.mark.parametrize(
    ("texts", "cpus"),
    [
        ([], None),
        (["max 100000\n"], None),
        (["200000 100000\n"], 2),
        (["150000 100000\n", "max 100000\n"], 2),  # one and a half
        (["20000 100000\n"], 1),  # less than one still runs
        (["800000 100000\n", "400000 100000\n"], 4),  # the tightest of the levels
    ],
)
def test_cgroup_quota(texts: list[str], cpus: int | None) -> None:
    assert linux.cpu_quota(texts) == cpus


FILES = ("_INFO", "_MEMORY", "_MEMBERSHIP", "_GROUPS", "_TOPOLOGY", "_FASTEST")


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux for its CPUs")
@pytest.mark.parametrize("missing", [*FILES, FILES])
@pytest.mark.parametrize("text", [None, "", "\n\n", "nonsense", "MemTotal: much\nflags\n0::"])
def test_a_machine_that_says_nothing_is_one_with_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str | tuple[str, ...], text: str | None
) -> None:
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    for name in (missing,) if isinstance(missing, str) else missing:
        monkeypatch.setattr(linux, name, path)
    cpu = linux.read_cpu()
    assert 1 <= cpu.performance_cores <= cpu.physical_cores <= cpu.logical_cores
    assert cpu.logical_cores <= len(os.sched_getaffinity(0))
    if "_INFO" in missing:
        assert (cpu.name, cpu.features) == ("", ())
        assert cpu.unread == f"{path} lists no features of the CPU"
    if "_MEMORY" in missing:
        assert cpu.memory is None
    if "_MEMORY" in missing and "_GROUPS" in missing:
        assert linux.read_free_memory() is None


def test_memory_is_in_bytes() -> None:
    assert linux.memory_bytes({"MemTotal": "16384 kB"}) == 16 * 2**20
    assert linux.memory_bytes({}) is None


@pytest.mark.parametrize(
    ("levels", "room"),
    [
        ([], None),
        ([("max\n", "5000\n", "anon 1\n")], None),
        ([("9000\n", "5000\n", "anon 4000\ninactive_file 700\nactive_file 300\n")], 4700),
        ([("9000\n", "5000\n", ""), ("6000\n", "5500\n", "")], 500),  # the tightest of the levels
        ([("9000\n", "9500\n", "")], 0),
        ([("", "", "")], None),  # cannot be read
    ],
)
def test_what_a_cgroup_leaves(levels: list[tuple[str, str, str]], room: int | None) -> None:
    assert linux.group_room(levels) == room
