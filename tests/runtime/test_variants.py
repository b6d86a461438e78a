"""Which variant of a bundle runs: ranked, overridden, and given up aloud down to the CPU."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.resolve import misfits
from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime import Agent, CallResult, open_bundle, variants
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, open_engine
from dualtune_edge.runtime.variants import open_best, ways
from dualtune_edge.toolkit.bundle.sharing import weight_bytes
from dualtune_edge.toolkit.errors import EngineError, ProfileError

QUESTION = "read it"
Change = Callable[[Callable[[dict[str, Any]], object]], None]
pytestmark = pytest.mark.skipif(
    misfits(catalog.load("cpu-x64"), detect()) != (), reason="profile cpu-x64 does not fit this CPU"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(catalog.PROFILE_VARIABLE, raising=False)


@pytest.fixture
def with_variants(bundle: Path, change_manifest: Change, reseal: Callable[[], None]) -> Callable[..., Path]:
    """The bundle with these profiles as variants, of the primary model or of a twin of it."""

    def make(*profiles: str, of: str = "model") -> Path:
        (bundle / "profiles").mkdir()

        def change(manifest: dict[str, Any]) -> None:
            for name in profiles:
                data = resources.files("dualtune_edge.profiles") / "data" / f"{name}.toml"
                (bundle / "profiles" / f"{name}.toml").write_bytes(data.read_bytes())
                manifest["files"].append({"path": f"profiles/{name}.toml", "size": 0, "sha256": "0" * 64})
            twin = {"name": of, "folder": "model", "graph": {"form": "dynamic"}}
            twin |= {name: manifest[name] for name in ("quantization", "cache", "adapters")}
            twin |= {"states": [], "stage_states": {}, "contexts": []}
            files, versions = manifest.pop("files"), manifest.pop("versions")
            manifest["version"] = 2
            manifest["models"] = [] if of == "model" else [twin]
            manifest["variants"] = [
                {"profile": name, "file": f"profiles/{name}.toml", "model": of if index == 0 else "model"}
                for index, name in enumerate(profiles)
            ]
            manifest |= {"files": files, "versions": versions}

        change_manifest(change)
        reseal()
        return bundle

    return make


def call(bundle: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[CallResult, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["call", str(bundle), QUESTION, "--toolset", "files", "--threads", "1", "--json", *arguments])
    assert not ended.value.code
    out, err = capsys.readouterr()
    return CallResult.model_validate_json(out), err


def answer(result: CallResult) -> tuple[object, ...]:
    return result.tool, result.arguments, result.probability, result.notes


def test_a_bundle_without_variants_has_one_way(exported: Path) -> None:
    found = ways(open_bundle(exported))
    assert (len(found.ways), found.candidates) == (1, ())
    with Agent.of(open_best(found)) as agent:
        assert agent.call(QUESTION).variant is None


FAULTS = [
    ("absent", "not installed. Run: pip install onnxruntime-ep-openvino"),
    ("broken", "its library does not load"),
    ("deviceless", "finds no device that it runs on"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_a_better_variant_without_its_provider_gives_way_aloud(
    *,
    exported: Path,
    with_variants: Callable[..., Path],
    openvino: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    fault: str,
    message: str,
) -> None:
    plain, _ = call(exported, capsys)
    openvino(fault)
    found, err = call(with_variants("openvino-gpu", "cpu-x64"), capsys)
    assert answer(found) == answer(plain)
    assert found.variant is not None
    assert (found.variant.profile, found.variant.model) == ("cpu-x64", "model")
    assert [(candidate.profile, candidate.usable) for candidate in found.variant.candidates] == [
        ("cpu-x64", True),
        ("openvino-gpu", False),
    ]
    assert message in found.variant.candidates[1].why
    assert err == f"warning: variant openvino-gpu is passed over: {found.variant.candidates[1].why}\n"


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_variant_that_was_asked_for_gives_way_aloud(
    *,
    exported: Path,
    with_variants: Callable[..., Path],
    openvino: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    message: str,
    how: str,
) -> None:
    plain, _ = call(exported, capsys)
    openvino(fault)
    bundle = with_variants("openvino", "cpu-x64")
    if how == "environment":
        monkeypatch.setenv(catalog.PROFILE_VARIABLE, "openvino")
    found, err = call(bundle, capsys, *(["--profile", "openvino"] if how == "flag" else []))
    assert answer(found) == answer(plain)
    assert found.placement.provider == CPU_PROVIDER
    assert message in found.placement.instead
    assert err == f"warning: {found.placement.instead}\n"


def test_what_was_not_measured_to_be_faster_is_no_reason_to_warn(
    with_variants: Callable[..., Path], openvino: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    openvino("absent")
    found, err = call(with_variants("openvino", "cpu-x64"), capsys)
    assert found.variant is not None
    assert (found.variant.profile, err) == ("cpu-x64", "")


@pytest.mark.parametrize("of", ["model", "twin"])
def test_a_variant_runs_its_own_model(
    exported: Path, with_variants: Callable[..., Path], capsys: pytest.CaptureFixture[str], of: str
) -> None:
    plain, _ = call(exported, capsys)
    found, _ = call(with_variants("cpu-x64", of=of), capsys)
    assert found.variant is not None
    assert found.variant.model == of
    assert answer(found) == answer(plain)
    assert (found.tokens.reused > 0) == (of == "model")  # the twin has no states


def test_a_variant_that_does_not_open_gives_way_to_the_next(
    with_variants: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_variants("cpu-x64", of="twin")
    opened: list[SessionSettings] = []

    def fails_at_first(source: ModelSource, settings: SessionSettings, kind: EngineKind) -> Engine:
        opened.append(settings)
        if len(opened) == 1:
            raise EngineError("the graph", found="a context binary of another version", expected="", fix="")
        return open_engine(source, settings, kind)

    monkeypatch.setattr(variants, "open_engine", fails_at_first)
    found, err = call(bundle, capsys)
    assert found.variant is not None
    assert found.variant.model == "model"
    assert found.placement.instead == (
        f"variant cpu-x64 does not open, so the primary model by {CPU_PROVIDER} does: "
        "a context binary of another version"
    )
    assert found.placement.instead in err


def test_a_profile_that_is_no_variant_runs_the_primary_model(
    with_variants: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = call(with_variants("cpu-x64", of="twin"), capsys, "--profile", "x86-64-avx512-vnni")
    assert found.variant is not None
    assert (found.variant.profile, found.variant.model) == ("x86-64-avx512-vnni", "model")


def test_a_later_versions_profile_is_passed_over(
    with_variants: Callable[..., Path], reseal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = with_variants("cpu-x64", of="twin")
    path = bundle / "profiles" / "cpu-x64.toml"
    path.write_text("spin_speed = 3\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    reseal()
    found, _ = call(bundle, capsys)
    assert found.variant is not None
    assert found.variant.model == "model"
    assert "unknown key 'spin_speed'" in found.variant.candidates[0].why


def budget(path: Path, megabytes: int) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[graph]", f"memory_mb = {megabytes}\n\n[graph]", 1), encoding="utf-8")


def test_a_model_beyond_a_variants_budget_is_passed_over_aloud(
    with_variants: Callable[..., Path], reseal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = with_variants("openvino-gpu", "cpu-x64")
    budget(bundle / "profiles" / "openvino-gpu.toml", 1)
    budget(bundle / "profiles" / "cpu-x64.toml", 1)
    (bundle / "model" / "model.onnx.data").open("ab").write(bytes(1_000_000))
    reseal()
    found, err = call(bundle, capsys)
    assert found.variant is not None
    assert {candidate.usable for candidate in found.variant.candidates} == {False}
    assert "its memory_mb allows 1" in found.variant.candidates[0].why
    assert "variant cpu-x64 is passed over: 1." in err
    with pytest.raises(ProfileError, match=r"profile cpu-x64: found 1\..* MB of weights"):
        ways(open_bundle(bundle), profile="cpu-x64")


def test_one_profile_beyond_its_budget_is_refused(exported: Path, tmp_path: Path) -> None:
    data = resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml"
    path = tmp_path / "small.toml"
    path.write_bytes(data.read_bytes())
    budget(path, 1)
    opened = open_bundle(exported)
    size = weight_bytes(opened.manifest, opened.entry)
    assert len(ways(opened, profile=str(path)).ways) == 1
    assert size < 1_000_000
    large = opened.manifest.files[0].model_copy(update={"path": "model/more.onnx.data", "size": 1_000_001 - size})
    manifest = opened.manifest.model_copy(update={"files": (*opened.manifest.files, large)})
    with pytest.raises(ProfileError, match="Follow another profile"):
        ways(replace(opened, manifest=manifest), profile=str(path))


def test_an_unknown_profile_tells_the_nearest_variant_too(with_variants: Callable[..., Path]) -> None:
    opened = open_bundle(with_variants("cpu-x64"))
    with pytest.raises(ProfileError, match="Did you mean 'cpu-x64'"):
        ways(opened, profile="cpu-x46")


def test_static_graphs_that_the_bundle_has_not_are_refused(
    with_variants: Callable[..., Path], static_profile: Path
) -> None:
    with pytest.raises(ProfileError, match=r"profile contoso-npu: found static graphs.*expected cpu-x64, or a profile"):
        ways(open_bundle(with_variants("cpu-x64")), profile=str(static_profile))


def test_static_graphs_for_a_bundle_without_variants_are_refused(exported: Path, static_profile: Path) -> None:
    with pytest.raises(ProfileError, match=r"found static graphs.*expected a profile with a dynamic graph"):
        ways(open_bundle(exported), profile=str(static_profile))


def test_a_profile_under_another_name_is_passed_over(
    with_variants: Callable[..., Path], reseal: Callable[[], None]
) -> None:
    bundle = with_variants("cpu-x64", of="twin")
    data = resources.files("dualtune_edge.profiles") / "data" / "openvino.toml"
    (bundle / "profiles" / "cpu-x64.toml").write_bytes(data.read_bytes())
    reseal()
    found = ways(open_bundle(bundle))
    assert [(candidate.usable, candidate.why) for candidate in found.candidates] == [
        (False, "its profile is that of openvino")
    ]
    assert found.best.bundle.chosen == "model"


def test_inspect_tells_of_variants(
    with_variants: Callable[..., Path], openvino: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    openvino("absent")
    bundle = with_variants("cpu-x64", "openvino")
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(bundle), "--json"])
    summary = json.loads(capsys.readouterr().out)
    variants = summary["variants"]
    assert [standing["profile"] for standing in summary["here"]] == ["cpu-x64", "openvino"]
    assert [(variant["profile"], variant["shares"]) for variant in variants] == [
        ("cpu-x64", ["openvino"]),
        ("openvino", ["cpu-x64"]),
    ]
    assert [variant["added_bytes"] for variant in variants] == [
        (bundle / "profiles" / f"{variant['profile']}.toml").stat().st_size for variant in variants
    ]
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(bundle)])
    text = capsys.readouterr().out
    assert "variant         cpu-x64: a dynamic graph, the same as openvino; " in text
    assert "here            openvino: not, the package onnxruntime-ep-openvino is not installed" in text
