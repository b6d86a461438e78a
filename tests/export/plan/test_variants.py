"""One bundle for several profiles: what they share, what each adds, and that every model of it answers."""

import json
from importlib import resources
from pathlib import Path

import pytest

from dualtune_edge.export import budget, run
from dualtune_edge.export.budget import planned_weights, refuse_built_over_budget
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.layout import ModelLayout
from dualtune_edge.export.plan.variants import plan_models
from dualtune_edge.export.publish.report import ExportReport
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent, Bundle, open_bundle, open_engine
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.bundle.sharing import variant_sizes, weight_bytes
from dualtune_edge.toolkit.errors import ProfileError, SpecError

TOOLS = [
    {"name": "read", "description": "Read a file", "inputSchema": {"properties": {"path": {"enum": ["a", "b"]}}}},
    {"name": "roots", "description": "List roots", "inputSchema": {"type": "object", "properties": {}}},
]
SPEC = """\
base: base
parity: {prompts: 1, argument_tokens: 4}
toolsets: [{name: files, tools: files.json, selection: one, arguments: {read: two}}]
profile: [cpu-x64, openvino, merged.toml, coarse.toml]
"""


@pytest.fixture(scope="module")
def desk(base_and_adapters: Path) -> Path:
    folder = base_and_adapters
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (folder / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    data = resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml"
    text = data.read_text(encoding="utf-8")
    for name, old, new in (
        ("merged", 'mode = "external"', 'mode = "merged"'),
        ("coarse", "block_size = 32", "block_size = 64"),
    ):
        changed = text.replace('"cpu-x64"', f'"{name}"').replace(old, new)
        (folder / f"{name}.toml").write_text(changed, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(desk: Path) -> ExportReport:
    return run.run(read_spec(desk / "dualtune.yaml"), desk / "bundle")


@pytest.fixture(scope="module")
def bundle(report: ExportReport) -> Bundle:
    return open_bundle(report.path)


def spec(desk: Path, *profiles: str) -> ExportSpec:
    return read_spec(desk / "dualtune.yaml").model_copy(update={"profiles": profiles})


def test_equal_builds_are_one_model(bundle: Bundle) -> None:
    models = {variant.profile: variant.model for variant in bundle.manifest.variants}
    assert models == {"cpu-x64": PRIMARY, "openvino": PRIMARY, "merged": "merged", "coarse": "coarse"}
    assert bundle.manifest.profile == "cpu-x64"


def test_models_share_the_files_that_are_the_same(bundle: Bundle) -> None:
    primary, merged, coarse = (bundle.manifest.model(name) for name in (PRIMARY, "merged", "coarse"))
    assert (primary.folder, merged.folder, coarse.folder) == ("model", "model", "variants/coarse/model")
    assert [adapter.path for adapter in coarse.adapters] == [adapter.path for adapter in primary.adapters]
    assert {adapter.mode for adapter in merged.adapters} == {"merged"}
    assert {adapter.path.split("/")[0] for adapter in merged.adapters} == {"merged"}
    assert coarse.quantization == primary.quantization.model_copy(update={"block_size": 64})
    assert {Path(state.path).parent.as_posix() for state in coarse.states} == {"variants/coarse/states"}


def test_the_profiles_are_in_the_bundle_as_they_were_read(bundle: Bundle, desk: Path) -> None:
    files = {variant.profile: (bundle.root / variant.file).read_bytes() for variant in bundle.manifest.variants}
    assert files["coarse"] == (desk / "coarse.toml").read_bytes()
    assert catalog.parse(files["openvino"], where="openvino") == catalog.load("openvino")


def test_what_a_variant_adds_is_what_no_other_reads(report: ExportReport, bundle: Bundle) -> None:
    cpu, openvino, merged, coarse = report.variants
    sizes = {file.path: file.size for file in bundle.manifest.files}
    assert report.variants == variant_sizes(bundle.manifest)
    assert (cpu.shares, openvino.shares, merged.shares, coarse.shares) == (("openvino",), ("cpu-x64",), (), ())
    assert (cpu.added_bytes, openvino.added_bytes) == (sizes["profiles/cpu-x64.toml"], sizes["profiles/openvino.toml"])
    own = sum(size for path, size in sizes.items() if path.startswith(("merged/", "variants/merged/states/")))
    assert merged.added_bytes == own + sizes["profiles/merged.toml"]
    assert coarse.added_bytes < coarse.size_bytes  # the adapters are shared
    assert report.sizes.variants == sum(size for path, size in sizes.items() if path.startswith("variants/"))


def test_each_model_is_compared_and_has_its_states(bundle: Bundle) -> None:
    for name in (PRIMARY, "merged", "coarse"):
        seen = bundle.on(name)
        assert seen.parity is not None
        assert [stage.stage for stage in seen.parity.stages] == ["base", "selection.files", "arguments.files.read"]
        assert all(
            seen.state_of(stage) in {state.path for state in seen.entry.states} for stage in seen.manifest.stages
        )
    coarse, primary = bundle.on("coarse").parity, bundle.parity
    assert coarse is not None
    assert primary is not None
    assert coarse.stages[0].max_error != primary.stages[0].max_error


@pytest.mark.parametrize("name", [PRIMARY, "merged", "coarse"])
def test_every_model_answers_without_reading_its_prefixes(bundle: Bundle, name: str) -> None:
    seen = bundle.on(name)
    with Agent(seen, open_engine(seen.model, SessionSettings(intra_op_threads=1))) as agent:
        answer = agent.call("read a")
    assert answer.notes == ()
    assert answer.tokens.reused >= len(seen.plan(seen.toolset("files").selection).prefix)


def test_one_profile_stays_as_it_is(desk: Path, tmp_path: Path) -> None:
    alone = spec(desk, "cpu-x64").model_copy(update={"parity": None, "prefix_states_mb": 0})
    manifest = open_bundle(run.run(alone, tmp_path / "bundle").path).manifest
    assert (manifest.version, manifest.variants, manifest.profile) == (1, (), "cpu-x64")
    assert not (tmp_path / "bundle" / "profiles").exists()


def test_the_spec_beats_what_profiles_say_of_it(desk: Path) -> None:
    asked = spec(desk, "cpu-x64", str(desk / "merged.toml")).model_copy(update={"mode": "external"})
    (primary,) = plan_models(asked, read_inputs(asked), run.EXPORTERS)
    assert [profile.name for profile in primary.profiles] == ["cpu-x64", "merged"]


def test_a_model_of_another_mode_and_quantization_has_a_place_of_its_own(desk: Path, tmp_path: Path) -> None:
    text = (desk / "merged.toml").read_text(encoding="utf-8").replace('"merged"\ndesc', '"both"\ndesc')
    (tmp_path / "both.toml").write_text(text.replace("block_size = 32", "block_size = 64"), encoding="utf-8")
    asked = spec(desk, "cpu-x64", str(tmp_path / "both.toml"), str(desk / "coarse.toml"))
    _, both, coarse = plan_models(asked, read_inputs(asked), run.EXPORTERS)
    assert both.inputs.layout.merged == "variants/both/merged"
    assert both.inputs.layout.model == "variants/both/model"
    assert (coarse.inputs.layout.model, coarse.inputs.layout.adapters) == ("variants/both/model", "adapters")
    assert coarse.inputs.layout.states == ModelLayout.below("variants/coarse").states


@pytest.mark.parametrize(
    ("profiles", "transposed"),
    [
        ((), True),
        (("cpu-x64",), True),
        (("arm64-i8mm", "apple-silicon"), False),
        (("arm64-i8mm", "cpu-x64"), True),  # models share adapters' files, so that one layout must do
    ],
)
def test_adapters_are_stored_as_the_profiles_read_them_best(
    desk: Path, profiles: tuple[str, ...], *, transposed: bool
) -> None:
    asked = spec(desk, *profiles)
    assert {plan.inputs.transposed_slots for plan in plan_models(asked, read_inputs(asked), run.EXPORTERS)} == {
        transposed
    }


def test_two_profiles_of_one_name_are_refused(desk: Path) -> None:
    with pytest.raises(SpecError, match=r"profile: found two profiles named 'cpu-x64'"):
        read_inputs(spec(desk, "cpu-x64", "openvino", "cpu-x64"))


def test_the_weights_are_planned_as_large_as_they_become(bundle: Bundle, desk: Path) -> None:
    asked = read_spec(desk / "dualtune.yaml")
    for plan in plan_models(asked, read_inputs(asked), run.EXPORTERS):
        entry = bundle.manifest.model(plan.name)
        built, graphs = (
            weight_bytes(bundle.manifest, entry),
            1 + [adapter.mode for adapter in entry.adapters].count("merged"),
        )
        assert built <= planned_weights(plan.inputs) < built + graphs * 150_000  # the bound of what is around weights


def test_a_model_beyond_a_budget_is_refused_before_it_is_built(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(
        (desk / "coarse.toml").read_text(encoding="utf-8").replace("[graph]", "memory_mb = 1\n[graph]"),
        encoding="utf-8",
    )
    asked = spec(desk, "cpu-x64", str(tmp_path / "small.toml"))
    monkeypatch.setattr(budget, "planned_weights", lambda _: 1_000_001)
    with pytest.raises(ProfileError, match=r"profile coarse: found base with its adapters: about 1\.0 MB of weights"):
        run.run(asked, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]


def test_what_becomes_too_large_all_the_same_is_not_published(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(
        (desk / "coarse.toml").read_text(encoding="utf-8").replace("[graph]", "memory_mb = 1\n[graph]"),
        encoding="utf-8",
    )
    asked = spec(desk, str(tmp_path / "small.toml"))
    (plan,) = plan_models(asked, read_inputs(asked), run.EXPORTERS)
    manifest = open_bundle(desk / "bundle").manifest
    large = manifest.files[0].model_copy(update={"path": "model/more.onnx.data", "size": 1_000_001})
    with pytest.raises(ProfileError, match="memory_mb allows 1"):
        refuse_built_over_budget([plan], manifest.model_copy(update={"files": (*manifest.files, large)}))


def test_static_graphs_without_an_exporter_are_refused_before_any_work(desk: Path, static_profile: Path) -> None:
    asked = spec(desk, "cpu-x64", str(static_profile))
    with pytest.raises(
        ProfileError, match=r"profile contoso-npu: found a static graph for QNN.*Leave this profile out"
    ):
        plan_models(asked, read_inputs(asked), {})
