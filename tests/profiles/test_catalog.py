import os
from pathlib import Path

import pytest

from dualtune_edge.profiles import catalog
from dualtune_edge.toolkit.errors import ProfileError

DATA = Path(catalog.__file__).parent / "data"


def test_every_file_is_a_profile_of_its_own_name_and_gives_every_reason() -> None:
    known = catalog.profiles()
    assert {f"{profile.name}.toml" for profile in known} == {path.name for path in DATA.iterdir()}
    assert [profile.name for profile in known] == sorted(profile.name for profile in known)
    unexplained = [
        f"{profile.name}: {setting}"
        for profile in known
        for setting in profile.settings
        if not profile.why.get(setting)
    ]
    assert unexplained == []


def test_no_two_profiles_ask_for_the_same() -> None:
    asked = [
        (
            profile.architecture,
            profile.system,
            frozenset(profile.features),
            profile.provider,
            profile.device,
            profile.qnn,
        )
        for profile in catalog.profiles()
    ]
    assert len(asked) == len(set(asked))


def test_a_file_of_the_users_own_loads_by_its_path(tmp_path: Path) -> None:
    text = (DATA / "cpu-x64.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('"cpu-x64"', '"mine"').replace('"performance"', "3"), encoding="utf-8")
    profile = catalog.load(path)
    assert (profile.name, profile.session.threads) == ("mine", 3)
    assert profile == catalog.load(str(path))


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(ProfileError, match="Did you mean 'cpu-x64'"):
        catalog.load("cpu-x46")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("block_size", "blocksize", r"quantization\.blocksize.*Did you mean 'block_size'"),
        ("block_size = 32", "block_size = 48", r"quantization\.block_size: found 48"),
        ("spinning = true", 'spinning = "sometimes"', r"session\.spinning: found 'sometimes'"),
        ('threads = "performance"', "threads = 0", r"session\.threads"),
        ("description", "describtion", r"describtion.*Did you mean 'description'"),
        ("[session]", "[session", r"mine\.toml: found .*TOML"),
        ('provider = "CPUExecutionProvider"', 'provider = "CUDAExecutionProvider"', "provider"),
        (
            "[quantization]",
            '[openvino]\nprecision = "bf16"\n[quantization]',
            "no `openvino` where CPUExecutionProvider runs the model",
        ),
        ("[quantization]", "[qnn]\nsoc_model = 60\nhtp_arch = 73\n[quantization]", "no `qnn` where CPU"),
        ("[graph]", 'device = "GPU"\n[graph]', "`device` CPU for CPUExecutionProvider"),
        ("[graph]", 'system = "Windoze"\n[graph]', "system: found 'Windoze'"),
        ('kv_type = "float32"', 'kv_type = "int4"', "kv_type: found 'int4'.*'float32' or 'int8'"),
        ('form = "dynamic"', 'form = "static"\nchunks = [1, 64]\nkv_length = 512', "a static `graph` for QNN"),
        ("[quantization]", "[qdq]\nweight_bits = 4\nactivation_bits = 16\n[quantization]", "not the other"),
        ('form = "dynamic"', 'form = "statick"', "graph: found.*'dynamic', 'static'"),
        ("[why]", '[why]\nspining = "x"', r"no reason for 'spining'.*Did you mean 'spinning'"),
        ("[graph]", "memory_mb = 0\n[graph]", "memory_mb: found 0"),
        ('weights = "mapped"', 'weights = "shared"', r"session\.weights: found 'shared'"),
        (
            'provider = "CPUExecutionProvider"',
            'provider = "OpenVINOExecutionProvider"',
            "no mapped `session.weights` where OpenVINO",
        ),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (DATA / "cpu-x64.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        catalog.load(path)


def test_a_cache_in_int8_is_for_the_cpu_provider(tmp_path: Path) -> None:
    for name in ("cpu-x64", "openvino"):
        text = (DATA / f"{name}.toml").read_text(encoding="utf-8").replace('kv_type = "float32"', 'kv_type = "int8"')
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    assert catalog.load(tmp_path / "cpu-x64.toml").settings["kv_type"] == "int8"
    with pytest.raises(ProfileError, match="`kv_type` float32 for OpenVINOExecutionProvider"):
        catalog.load(tmp_path / "openvino.toml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.toml"):
        catalog.load(tmp_path / "none.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "huge", "deep", "digits", "null"])
def test_what_is_no_profile_ends(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.write_text("#" * 10**6, encoding="utf-8")
    elif kind == "deep":
        path.write_text("a = " + "[" * 30_000, encoding="utf-8")
    elif kind == "digits":
        path.write_text("a = " + "1" * 10_000, encoding="utf-8")
    else:
        path = tmp_path / "x\0.toml"
    with pytest.raises(ProfileError, match="x"):
        catalog.load(path)


@pytest.mark.parametrize("threads", [0, -1, 10**9])
def test_no_profile_starts_threads_without_number(tmp_path: Path, threads: int) -> None:
    text = (
        (DATA / "cpu-x64.toml").read_text(encoding="utf-8").replace('threads = "performance"', f"threads = {threads}")
    )
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match="threads"):
        catalog.load(tmp_path / "mine.toml")


def test_the_flag_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(catalog.PROFILE_VARIABLE, raising=False)
    assert catalog.asked_for(None) is None
    monkeypatch.setenv(catalog.PROFILE_VARIABLE, "openvino")
    assert catalog.asked_for(None) == "openvino"
    assert catalog.asked_for("cpu-x64") == "cpu-x64"
