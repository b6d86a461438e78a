import re
from dataclasses import replace

import pytest

from dualtune_edge.profiles import catalog, plugins
from dualtune_edge.profiles.plugins import PluginState
from dualtune_edge.profiles.resolve import StateOf, candidates, passed_over, rank, resolve
from dualtune_edge.profiles.schema import Cpu, EpDevice, HardwareProfile, Machine, OpenVinoOptions, SessionSettings
from dualtune_edge.toolkit.errors import ProfileError

AVX2 = ("avx2", "fma")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni")


def machine(
    architecture: str, *features: str, physical: int = 4, logical: int = 8, fastest: int = 4, system: str = "Linux"
) -> Machine:
    cpu = Cpu(
        name="",
        features=features,
        physical_cores=physical,
        logical_cores=logical,
        performance_cores=fastest,
        memory=None,
    )
    return Machine(system=system, architecture=architecture, cpu=cpu)


def openvino(*kinds: str, problem: str = "") -> StateOf:
    """A state of the plugin: the devices that it offers, or what is amiss."""
    devices = tuple(EpDevice(provider=plugins.OPENVINO, kind=kind, vendor="Intel") for kind in kinds)
    return lambda provider: PluginState(provider, "1.0", devices, problem, "Run: pip install it" if problem else "")


@pytest.mark.parametrize(
    ("here", "name"),
    [
        (machine("x86_64", *AVX2), "cpu-x64"),
        (machine("x86_64", *AVX2, "avx_vnni"), "x86-64-avx-vnni"),
        (machine("x86_64", *AVX512), "x86-64-avx512-vnni"),
        (machine("x86_64", *AVX512, "avx_vnni"), "x86-64-avx512-vnni"),
        (machine("x86_64", *AVX512[:-1]), "cpu-x64"),  # Skylake-X: AVX512 without VNNI
        (machine("arm64", "asimddp"), "arm64-dotprod"),
        (machine("arm64", "asimddp", "i8mm"), "arm64-i8mm"),
        (machine("arm64", "asimddp", system="Darwin"), "apple-silicon"),
        (machine("arm64", "asimddp", "i8mm", system="Darwin"), "apple-silicon"),
        (machine("x86_64", *AVX512, "amx_tile", "amx_bf16"), "x86-64-avx512-vnni"),  # OpenVINO is not taken unasked
    ],
)
def test_the_most_demanding_profile_that_fits_is_taken(here: Machine, name: str) -> None:
    resolution = resolve(None, here)
    assert resolution.profile.name == name
    assert resolution.warnings == ()


def test_a_cpu_of_which_nothing_is_known_gets_the_plainest_profile_and_a_word() -> None:
    here = machine("x86_64")
    unknown = replace(here, cpu=replace(here.cpu, unread="/proc/cpuinfo lists no features of the CPU"))
    resolution = resolve(None, unknown)
    assert resolution.profile.name == "cpu-x64"
    assert resolution.settings.intra_op_threads == 4
    (warning,) = resolution.warnings
    assert "of which nothing is known: /proc/cpuinfo lists no features" in warning
    assert "which this machine lacks" in resolve(None, here).warnings[0]


def test_threads_are_the_physical_cores_and_every_setting_has_a_reason() -> None:
    resolution = resolve(None, machine("x86_64", *AVX2, physical=6, logical=12, fastest=6))
    assert resolution.settings == SessionSettings(intra_op_threads=6, spinning=True, weights="mapped")
    values = {reason.setting: reason.value for reason in resolution.reasons}
    assert values == {
        "profile": "cpu-x64",
        "provider": "CPUExecutionProvider",
        "threads": "6",
        "spinning": "on",
        "weights": "mapped",
        "graph": "dynamic",
        "mode": "external",
        "kv_type": "float32",
        "bits": "4",
        "block_size": "32",
        "accuracy_level": "4",
        "algorithm": "default",
    }
    assert all(reason.why for reason in resolution.reasons)


def test_threads_asked_for_beat_the_profile() -> None:
    resolution = resolve(None, machine("x86_64", *AVX2), threads=3)
    assert resolution.settings.intra_op_threads == 3
    assert next(reason.why for reason in resolution.reasons if reason.setting == "threads") == "asked for"


def test_a_profile_may_fix_the_threads() -> None:
    profile = catalog.load("cpu-x64")
    fixed = profile.model_copy(update={"session": profile.session.model_copy(update={"threads": 2})})
    assert resolve(fixed, machine("x86_64", *AVX2)).settings.intra_op_threads == 2


def test_a_profile_for_another_machine_is_followed_and_told() -> None:
    other = resolve(catalog.load("arm64-i8mm"), machine("x86_64", *AVX2))
    assert other.profile.name == "arm64-i8mm"
    assert other.warnings == ("profile arm64-i8mm is for arm64, this machine is x86_64",)
    missing = resolve(catalog.load("x86-64-avx-vnni"), machine("x86_64", *AVX2))
    assert "avx_vnni" in missing.warnings[0]


def test_a_cpu_that_no_profile_fits_gets_the_plainest_with_a_warning() -> None:
    resolution = resolve(None, machine("x86_64"))
    assert resolution.profile.name == "cpu-x64"
    assert "avx2" in resolution.warnings[0]


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"riscv64.*arm64, x86_64"):
        resolve(None, machine("riscv64"))


@pytest.mark.parametrize(
    ("here", "name"),
    [
        (machine("arm64"), "arm64-dotprod"),
        (machine("arm64", system="Darwin"), "arm64-dotprod"),  # of two with one feature, that for any system
        (machine("x86_64", "avx_vnni"), "cpu-x64"),
    ],
)
def test_where_none_fits_the_plainest_of_the_architecture_is_taken(here: Machine, name: str) -> None:
    resolution = resolve(None, here)
    assert resolution.profile.name == name
    assert resolution.reasons[0].why == f"none fits this CPU; it is the plainest for {here.architecture}"
    assert len(resolution.warnings) == 1


@pytest.mark.parametrize("threads", [-1, 0, 1025, 100_000])
def test_as_many_threads_are_refused(threads: int) -> None:
    with pytest.raises(ProfileError, match="1 to 1024"):
        resolve(None, machine("x86_64", *AVX2), threads=threads)


@pytest.mark.parametrize("threads", [1, 1024])
def test_as_many_threads_are_taken(threads: int) -> None:
    assert resolve(None, machine("x86_64", *AVX2), threads=threads).settings.intra_op_threads == threads


def test_reasons_are_the_profile_s_own_or_name_it() -> None:
    profile = catalog.load("cpu-x64")
    plain = profile.model_copy(update={"session": profile.session.model_copy(update={"threads": 2}), "why": {}})
    reasons = {reason.setting: reason.why for reason in resolve(plain, machine("x86_64", *AVX2)).reasons}
    assert set(reasons.values()) == {"asked for", "on the CPU", "profile cpu-x64 says so"}
    assert (reasons["profile"], reasons["provider"]) == ("asked for", "on the CPU")
    reasons = {reason.setting: reason.why for reason in resolve(profile, machine("x86_64", *AVX2)).reasons}
    assert {name: reasons[name] for name in profile.why if name != "threads"} == {
        name: why for name, why in profile.why.items() if name != "threads"
    }
    assert reasons["threads"].startswith("4 of 4 physical cores are of the fastest kind; ")
    assert reasons["threads"].endswith(profile.why["threads"])


@pytest.mark.parametrize("threads", [0, -1])
def test_settings_have_threads(threads: int) -> None:
    with pytest.raises(ValueError, match="onnxruntime"):
        SessionSettings(intra_op_threads=threads)


def test_efficiency_cores_are_left_out_where_the_profile_says_so() -> None:
    hybrid = machine("x86_64", *AVX2, "avx_vnni", physical=10, logical=12, fastest=2)
    assert resolve(None, hybrid).settings.intra_op_threads == 2
    assert resolve(catalog.load("cpu-x64"), hybrid).settings.intra_op_threads == 2
    mac = machine("arm64", "asimddp", physical=8, logical=8, fastest=4, system="Darwin")
    assert resolve(None, mac).settings.intra_op_threads == 4


def test_a_profile_for_another_system_is_told() -> None:
    resolution = resolve(catalog.load("apple-silicon"), machine("arm64", "asimddp"))
    assert resolution.warnings == ("profile apple-silicon is for Darwin, this machine runs Linux",)


def test_openvino_is_followed_where_it_offers_the_device() -> None:
    resolution = resolve(catalog.load("openvino"), machine("x86_64", *AVX2), state=openvino("CPU"))
    settings = resolution.settings
    assert (settings.provider, settings.device) == (plugins.OPENVINO, "CPU")
    assert settings.openvino == OpenVinoOptions(precision="f32", activations="f32")
    assert (settings.instead, resolution.warnings) == ("", ())


@pytest.mark.parametrize(
    ("name", "here", "state", "message"),
    [
        (
            "openvino",
            machine("x86_64", *AVX2),
            openvino(problem="it is not installed"),
            r"not installed\. Run: pip",
        ),
        ("openvino-gpu", machine("x86_64", *AVX2), openvino("CPU", "NPU"), "offers CPU, NPU here and no GPU"),
        ("openvino-amx", machine("x86_64", *AVX2), openvino("CPU"), "needs the CPU feature amx_tile"),
    ],
)
def test_a_provider_that_cannot_be_used_gives_way_to_the_cpu_and_says_why(
    name: str, here: Machine, state: StateOf, message: str
) -> None:
    resolution = resolve(catalog.load(name), here, state=state)
    assert resolution.profile.name == "cpu-x64"
    assert resolution.settings.provider == "CPUExecutionProvider"
    assert resolution.settings.instead == resolution.warnings[0]
    assert re.search(f"profile {name} cannot be followed, so profile cpu-x64 is: .*{message}", resolution.warnings[0])


def test_candidates_are_ranked_each_with_a_reason() -> None:
    ranked = candidates(machine("x86_64", *AVX512), openvino("CPU"))
    assert sorted(row.profile for row in ranked) == [profile.name for profile in catalog.profiles()]
    usable = [row.profile for row in ranked if row.usable]
    assert usable == ["x86-64-avx512-vnni", "cpu-x64", "openvino"]
    assert ranked[: len(usable)] == tuple(row for row in ranked if row.usable)
    assert [row.why for row in ranked[:3]] == [
        f"of those that fit, it uses most of this CPU: {', '.join(AVX512)}",
        "fits, and uses less of this CPU",
        "runs here if asked for: it was not measured to be faster",
    ]
    why = {row.profile: row.why for row in ranked[3:]}
    assert why["arm64-i8mm"] == "profile arm64-i8mm is for arm64, this machine is x86_64"
    assert why["x86-64-avx-vnni"] == "profile x86-64-avx-vnni needs the CPU feature avx_vnni, which this machine lacks"
    assert why["openvino-gpu"] == "OpenVINOExecutionProvider offers CPU here and no GPU"
    assert ranked[0].profile == resolve(None, machine("x86_64", *AVX512)).profile.name


def gpu_and_cpu() -> list[HardwareProfile]:
    return [catalog.load(name) for name in ("openvino", "cpu-x64", "x86-64-avx512-vnni", "openvino-gpu", "arm64-i8mm")]


def test_variants_are_ranked_by_device_then_by_what_they_use_of_the_cpu() -> None:
    ranked = rank(gpu_and_cpu(), machine("x86_64", *AVX512), openvino("CPU", "GPU"))
    assert [(row.profile, row.usable) for row in ranked] == [
        ("openvino-gpu", True),
        ("x86-64-avx512-vnni", True),
        ("cpu-x64", True),
        ("openvino", True),
        ("arm64-i8mm", False),
    ]
    assert [row.why for row in ranked] == [
        "built for the GPU, which OpenVINOExecutionProvider offers here",
        f"for the CPU, of which it uses {', '.join(AVX512)}",
        "for the CPU, of which it uses avx2, fma",
        "runs here too, but was not measured to be faster than the CPU provider",
        "profile arm64-i8mm is for arm64, this machine is x86_64",
    ]


def test_an_npu_comes_before_a_gpu_and_a_gpu_before_the_cpu() -> None:
    named = {"NPU": "qnn-x-elite", "GPU": "openvino-gpu", "CPU": "openvino"}
    profiles = [
        catalog.load(name).model_copy(update={"architecture": "x86_64", "system": None, "features": ()})
        for name in reversed(named.values())
    ]

    def everything(provider: str) -> PluginState:
        devices = tuple(EpDevice(provider=provider, kind=kind, vendor="") for kind in named)
        return PluginState(provider, "1.0", devices, "", "")

    ranked = rank([*profiles, catalog.load("cpu-x64")], machine("x86_64", *AVX2), everything)
    assert [row.profile for row in ranked] == ["qnn-x-elite", "openvino-gpu", "cpu-x64", "openvino"]
    assert passed_over(profiles, profiles[-1], machine("x86_64"), openvino(problem="none")) == ()


def test_equals_keep_their_order() -> None:
    profile = catalog.load("cpu-x64")
    twins = [profile.model_copy(update={"name": name}) for name in "bac"]
    assert [row.profile for row in rank(twins, machine("x86_64", *AVX2))] == ["b", "a", "c"]


def test_only_what_is_for_this_machine_was_passed_over() -> None:
    """Of a GPU's profile for another architecture or system nobody misses the provider."""
    gpu = catalog.load("openvino-gpu")
    others = [
        gpu.model_copy(update={"name": "a", "architecture": "arm64"}),
        gpu.model_copy(update={"name": "b", "system": "Windows"}),
    ]
    missed = passed_over([gpu, *others], catalog.load("cpu-x64"), machine("x86_64", *AVX2), openvino("CPU"))
    assert [row.profile for row in missed] == ["openvino-gpu"]
    assert passed_over([gpu], catalog.load("cpu-x64"), machine("x86_64", *AVX2), openvino("GPU")) == ()


def test_what_cannot_be_followed_comes_last_with_the_reason() -> None:
    ranked = rank(gpu_and_cpu(), machine("x86_64", *AVX2), openvino("CPU"))
    assert [row.profile for row in ranked] == [
        "cpu-x64",
        "openvino",
        "x86-64-avx512-vnni",
        "openvino-gpu",
        "arm64-i8mm",
    ]
    assert "no GPU" in ranked[3].why
    (missed,) = passed_over(gpu_and_cpu(), catalog.load("cpu-x64"), machine("x86_64", *AVX2), openvino("CPU"))
    assert missed == ranked[3]
