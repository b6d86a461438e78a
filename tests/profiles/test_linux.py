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
