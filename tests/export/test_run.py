import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import pytest

from dualtune_edge.export import models, run
from dualtune_edge.export.adapter.read import AdapterWeights, read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.base.weights import Weights
from dualtune_edge.export.build import graphs
from dualtune_edge.export.compare import bundle as parity_bundle
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.plan.constraints import check_constraints
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.plan.prompts import plan_prompts
from dualtune_edge.export.plan.spec import ExportSpec, read_spec
from dualtune_edge.export.publish.report import ExportReport
from dualtune_edge.export.reference import open as parity_reference
from dualtune_edge.profiles import catalog
from dualtune_edge.toolkit.bundle.manifest import Manifest, Quantization
from dualtune_edge.toolkit.bundle.parity import EXACT, Depth, ParityReport
from dualtune_edge.toolkit.errors import (
    AdapterError,
    CheckpointError,
    DataError,
    EdgeError,
    GraphError,
    OutputError,
    ParityError,
    ProfileError,
    RequestError,
    SpecError,
    TemplateError,
    ToolsError,
)
from dualtune_edge.toolkit.files import sha256_file
from dualtune_edge.toolkit.prompts.prompter import PromptPlan

FILES = [
    {"name": "read", "description": "Read a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
    {"name": "write", "description": "Write a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
    {"name": "roots", "description": "List roots", "inputSchema": {"type": "object", "properties": {}}},
]
GIT = [{"name": "log", "description": "History", "inputSchema": {"properties": {"count": {"type": "integer"}}}}]
EXTERNAL = """\
base: base
toolsets:
  - name: files
    description: Files and folders
    tools: files.json
    selection: chooser
    arguments: writers
"""
MIXED = """\
base: base
mode: merged
toolsets:
  - name: files
    description: Files and folders
    tools: files.json
    selection: {path: chooser, mode: external}
    arguments: writers
  - name: git
    description: History
    tools: git.json
    selection: {path: chooser, mode: external}
"""


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_desk(folder: Path) -> None:
    """What a user has: a base, tool lists, adapters, specs."""
    from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
    from peft import LoraConfig

    write_checkpoint(folder / "base", Shape(64, 96, 3, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("chooser", "writers/read", "writers/write")):
        write_adapter(folder / name, folder / "base", config, seed=seed)
    write_json(folder / "files.json", {"tools": FILES})
    write_json(folder / "git.json", {"tools": GIT})
    (folder / "external.yaml").write_text(EXTERNAL, encoding="utf-8")
    (folder / "mixed.yaml").write_text(MIXED, encoding="utf-8")


@dataclass(frozen=True)
class Exported:
    """A desk, and what was exported of it."""

    desk: Path
    bundle: Path
    report: ExportReport

    @property
    def manifest(self) -> Manifest:
        return Manifest.model_validate_json((self.bundle / "manifest.json").read_bytes())

    def plan(self, path: str) -> PromptPlan:
        return PromptPlan.model_validate_json((self.bundle / path).read_bytes())


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_desk(folder)
    return folder


def export(desk: Path, name: str, bundle: Path) -> Exported:
    return Exported(desk, bundle, run.run(read_spec(desk / f"{name}.yaml"), bundle))


@pytest.fixture(scope="session")
def external(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(desk, "external", tmp_path_factory.mktemp("external") / "bundle")


@pytest.fixture(scope="session")
def mixed(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(desk, "mixed", tmp_path_factory.mktemp("mixed") / "bundle")


@pytest.fixture(params=["external", "mixed"])
def exported(request: pytest.FixtureRequest) -> Exported:
    each: Exported = request.getfixturevalue(request.param)
    return each


@pytest.fixture(scope="session")
def mixed_inputs(desk: Path) -> Inputs:
    return read_inputs(read_spec(desk / "mixed.yaml"))


@pytest.fixture(scope="session")
def built(mixed_inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "model"
    build_graph(mixed_inputs.checkpoint, folder, Quantization())
    return folder


@pytest.fixture
def quick_work(mixed_inputs: Inputs, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, building and merging done before: for tests of what happens around them."""

    def build(_: object, out: Path, *__: object, **___: object) -> None:
        shutil.copytree(built, out)

    monkeypatch.setattr(run, "read_inputs", lambda _: mixed_inputs)
    monkeypatch.setattr(models, "compare_bundle", lambda *_, **__: ParityReport(skipped="a test"))
    monkeypatch.setattr(graphs, "build_graph", build)


@pytest.fixture
def own_desk(desk: Path, tmp_path: Path) -> Path:
    """A desk that a test may damage."""
    return Path(shutil.copytree(desk, tmp_path / "desk"))


def test_the_manifest_lists_every_file_with_its_hash(exported: Exported) -> None:
    listed = {file.path: file for file in exported.manifest.files}
    there = {path.relative_to(exported.bundle).as_posix() for path in exported.bundle.rglob("*") if path.is_file()}
    assert listed.keys() == there - {"manifest.json", "manifest.sha256"}
    for path, entry in listed.items():
        assert entry.sha256 == sha256_file(exported.bundle / path)
        assert entry.size == (exported.bundle / path).stat().st_size


def test_stages_lead_to_prompts_and_adapters(exported: Exported) -> None:
    manifest = exported.manifest
    names = {adapter.name for adapter in manifest.adapters}
    for entry in manifest.toolsets:
        plan = exported.plan(entry.selection.prompt)
        assert [*(tool.name for tool in entry.toolset.tools), "summarize"] == list(plan.completions)
        assert entry.selection.adapter in names
        for tool, stage in entry.arguments.items():
            assert exported.plan(stage.prompt).tool == tool
            assert stage.adapter is None or stage.adapter in names
    assert all((exported.bundle / adapter.path).exists() for adapter in manifest.adapters)


def test_a_tool_without_arguments_has_no_stage(exported: Exported) -> None:
    assert list(exported.manifest.toolsets[0].arguments) == ["read", "write"]


def test_adapters_keep_their_rank_and_scale(exported: Exported) -> None:
    for adapter in exported.manifest.adapters:
        assert (adapter.rank, adapter.scale) == (4, 4.0)  # rsLoRA: 8 / √4


def test_the_base_opens_in_onnxruntime_genai_and_its_adapters_load(exported: Exported) -> None:
    import onnxruntime_genai as og

    model = og.Model(str(exported.bundle / "model"))
    adapters = og.Adapters(model)
    for adapter in exported.manifest.adapters:
        if adapter.mode == "external":
            adapters.load(str(exported.bundle / adapter.path), adapter.name)
            generator = og.Generator(model, _search(og, model))
            generator.set_active_adapter(adapters, adapter.name)
            generator.append_tokens([1, 2, 3])
            generator.generate_next_token()
        else:
            merged = og.Model(str(exported.bundle / adapter.path))
            generator = og.Generator(merged, _search(og, merged))
            generator.append_tokens([1, 2, 3])
            generator.generate_next_token()


def _search(og: Any, model: Any) -> Any:
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=16)
    return params


def test_the_report_tells_every_stage_and_size(exported: Exported) -> None:
    report, merges = exported.report, any(adapter.mode == "merged" for adapter in exported.manifest.adapters)
    names = [phase.name for phase in report.phases]
    assert names == [
        "read and check", "plan prompts", "build the base graph", "add LoRA slots", "write adapters",
        *(["merge adapters"] if merges else []), "try out", "compare with PEFT", "prefix states",
        "write manifest",
    ]  # fmt: skip
    assert all(phase.seconds >= 0 and phase.peak_mb > 0 for phase in report.phases)
    assert report.sizes.total == sum(path.stat().st_size for path in exported.bundle.rglob("*") if path.is_file())
    assert (report.sizes.merged > 0) == merges
    assert report.path == str(exported.bundle)


def test_nothing_in_a_bundle_tells_where_it_was_made(exported: Exported) -> None:
    for path in exported.bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(exported.desk).encode() not in content, path
            assert str(exported.bundle.parent).encode() not in content, path


def test_two_exports_in_two_places_give_the_same_bytes(mixed: Exported, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(mixed.desk, tmp_path / "another desk"))
    again = export(elsewhere, "mixed", tmp_path / "another bundle")
    assert again.manifest.files == mixed.manifest.files
    assert (again.bundle / "manifest.json").read_bytes() == (mixed.bundle / "manifest.json").read_bytes()


def test_one_adapter_of_two_stages_is_one_file(mixed: Exported) -> None:
    chosen = [adapter for adapter in mixed.manifest.adapters if adapter.kind == "selection"]
    assert [adapter.name for adapter in chosen] == ["selection.files", "selection.git"]
    assert len({adapter.path for adapter in chosen}) == 1
    assert "2 stages share one adapter: selection.files, selection.git" in mixed.report.warnings


def test_a_tool_without_an_adapter_goes_to_the_base_with_a_warning(mixed: Exported) -> None:
    files, git = mixed.manifest.toolsets
    assert files.arguments["read"].adapter == "arguments.files.read"
    assert git.arguments["log"].adapter is None
    assert [each for each in mixed.report.warnings if "no adapter" in each] == [
        "tool 'log' of 'git' has no adapter: the base model writes its arguments"
    ]


def test_a_toolset_without_adapters_and_descriptions_is_warned_of(desk: Path) -> None:
    toolsets = [{"name": name, "tools": desk / f"{name}.json"} for name in ("files", "git")]
    inputs = read_inputs(ExportSpec.model_validate({"base": desk / "base", "toolsets": toolsets}))
    assert "toolset 'files' has no selection adapter: the base model chooses among its tools" in inputs.warnings
    assert "toolset 'git' has no description: the base model chooses it by its name alone" in inputs.warnings
    assert inputs.adapters == ()


def test_what_the_spec_leaves_out_of_the_quantization_is_the_profiles(desk: Path) -> None:
    toolset = {"name": "files", "tools": desk / "files.json"}
    spec = {"base": desk / "base", "toolsets": [toolset], "profile": "cpu-x64", "quantization": {"block_size": 64}}
    inputs = read_inputs(ExportSpec.model_validate(spec))
    assert inputs.profile == catalog.load("cpu-x64")
    assert inputs.quantization == Quantization(block_size=64)


def test_what_a_constraint_cannot_hold_of_a_schema_is_warned_of(own_desk: Path) -> None:
    schema = {"properties": {"lines": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}}
    rewrite(own_desk / "files.json", lambda value: value["tools"][1].update(inputSchema=schema))
    inputs = read_inputs(read_spec(own_desk / "external.yaml"))
    (warning,) = check_constraints(plan_prompts(inputs), inputs.checkpoint)
    assert "'write' of 'files'" in warning
    assert "uniqueItems" in warning


def test_a_profile_file_is_warned_of(own_desk: Path) -> None:
    data = resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml"
    text = data.read_text(encoding="utf-8").replace('"cpu-x64"', '"mine"')
    (own_desk / "mine.toml").write_text(text, encoding="utf-8")
    (own_desk / "external.yaml").write_text(EXTERNAL + "profile: mine.toml\n", encoding="utf-8")
    inputs = read_inputs(read_spec(own_desk / "external.yaml"))
    assert "profile 'mine' is a file of yours: the device needs it beside the bundle" in inputs.warnings


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="this system does not tell what is mapped")
def test_no_file_is_held_when_the_bundle_gets_its_name(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows neither deletes nor renames what a process has mapped."""
    held: list[str] = []

    def write_manifest(*args: Any, **kwargs: Any) -> Manifest:
        manifest = real(*args, **kwargs)
        process = psutil.Process()
        opened = [file.path for file in (*process.memory_maps(), *process.open_files())]
        held.extend(path for path in opened if ".partial" in path and Path(path).name != "lock")
        return manifest

    real = run.write_manifest
    monkeypatch.setattr(run, "write_manifest", write_manifest)
    export(desk, "mixed", tmp_path / "bundle")
    assert held == []


# ---- bad input: refused by name, before any work, and nothing is written ----


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_graph(*_: object, **__: object) -> None:
        pytest.fail("the work began")

    monkeypatch.setattr(graphs, "build_graph", build_graph)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    write_json(path, value)


def refused(desk: Path, error: type[EdgeError], *words: str, spec: str = "external.yaml") -> None:
    output = desk / "out" / "bundle"
    output.parent.mkdir()
    with pytest.raises(error) as caught:
        run.run(read_spec(desk / spec), output)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)
    assert list(output.parent.iterdir()) == []


@pytest.mark.usefixtures("no_work")
class TestBadInput:
    def test_an_adapter_that_is_not_there(self, own_desk: Path) -> None:
        shutil.rmtree(own_desk / "chooser")
        refused(own_desk, SpecError, "line 6", "chooser", "does not exist")

    def test_an_adapter_of_another_base(self, own_desk: Path) -> None:
        (own_desk / "chooser" / "base_fingerprint.txt").write_text("f" * 64 + "\n", encoding="utf-8")
        refused(own_desk, AdapterError, "chooser", "ffffffffffff")

    def test_an_adapter_of_another_shape(self, own_desk: Path) -> None:
        from dualtune_edge_kit.random_checkpoint import Shape, write_adapter, write_checkpoint
        from peft import LoraConfig

        write_checkpoint(own_desk / "wider", Shape(96, 96, 2, 4, 2, 288, 2048))
        config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
        write_adapter(own_desk / "chooser", own_desk / "wider", config)
        refused(own_desk, AdapterError, "chooser", "q_proj", "96", "64")

    def test_a_pickled_adapter(self, own_desk: Path) -> None:
        (own_desk / "chooser" / "adapter_model.safetensors").rename(own_desk / "chooser" / "adapter_model.bin")
        refused(own_desk, AdapterError, "adapter_model.bin")

    def test_an_unknown_peft_feature(self, own_desk: Path) -> None:
        rewrite(own_desk / "writers" / "read" / "adapter_config.json", lambda config: config.update(use_magic=True))
        refused(own_desk, AdapterError, "read", "use_magic")

    def test_an_adapter_for_no_tool(self, own_desk: Path) -> None:
        (own_desk / "writers" / "read").rename(own_desk / "writers" / "red")
        refused(own_desk, SpecError, "'files'", "'red'", "Did you mean 'read'?")

    def test_an_adapter_in_a_mapping_for_no_tool(self, own_desk: Path) -> None:
        text = EXTERNAL.replace("arguments: writers", "arguments: {red: writers/read}")
        (own_desk / "external.yaml").write_text(text, encoding="utf-8")
        refused(own_desk, SpecError, "'files'", "'red'", "Did you mean 'read'?")

    def test_an_adapter_for_a_tool_that_takes_no_arguments(self, own_desk: Path) -> None:
        (own_desk / "writers" / "read").rename(own_desk / "writers" / "roots")
        refused(own_desk, SpecError, "'roots'", "takes no arguments")

    def test_two_adapters_for_one_tool(self, own_desk: Path) -> None:
        from dualtune_edge.toolkit.files import safe_name

        rewrite(own_desk / "files.json", lambda value: value["tools"][0].update(name="Read"))
        (own_desk / "writers" / "read").rename(own_desk / "writers" / "Read")
        shutil.copytree(own_desk / "writers" / "Read", own_desk / "writers" / safe_name("Read"))
        refused(own_desk, SpecError, "two adapters for 'Read'")

    def test_one_adapter_where_a_folder_of_adapters_should_be(self, own_desk: Path) -> None:
        text = EXTERNAL.replace("arguments: writers", "arguments: writers/read")
        (own_desk / "external.yaml").write_text(text, encoding="utf-8")
        refused(own_desk, SpecError, "an adapter itself", "Name the folder above it")

    def test_two_tools_of_one_name(self, own_desk: Path) -> None:
        rewrite(own_desk / "files.json", lambda value: value["tools"].append(FILES[0]))
        refused(own_desk, ToolsError, "files.json", "2 tools named 'read'")

    def test_a_bad_schema(self, own_desk: Path) -> None:
        rewrite(own_desk / "files.json", lambda value: value["tools"][1].update(inputSchema={"type": "strin"}))
        refused(own_desk, ToolsError, "tool 2 (write)", "strin")

    def test_a_schema_that_cannot_be_a_constraint(self, own_desk: Path) -> None:
        schema = {"properties": {"path": {"type": "string", "pattern": "^(?=a)b"}}}
        rewrite(own_desk / "files.json", lambda value: value["tools"][1].update(inputSchema=schema))
        refused(own_desk, ToolsError, "'write'")

    def test_a_tool_named_as_the_no_tool(self, own_desk: Path) -> None:
        rewrite(own_desk / "files.json", lambda value: value["tools"][2].update(name="summarize"))
        refused(own_desk, SpecError, "'files'", "'summarize'")

    def test_toolsets_and_tools_whose_joined_names_collide(self, own_desk: Path) -> None:
        write_json(own_desk / "one.json", [{"name": "b.c", "parameters": {}}])
        write_json(own_desk / "two.json", [{"name": "c", "parameters": {}}])
        text = "base: base\ntoolsets: [{name: a, tools: one.json}, {name: a.b, tools: two.json}]\n"
        (own_desk / "external.yaml").write_text(text, encoding="utf-8")
        refused(own_desk, SpecError, "'a.b.c' twice")

    def test_a_template_that_fails(self, own_desk: Path) -> None:
        (own_desk / "chooser" / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8")
        refused(own_desk, TemplateError, "chat_template.jinja", "no")

    def test_a_prompt_longer_than_the_context(self, own_desk: Path) -> None:
        rewrite(own_desk / "files.json", lambda value: value["tools"][0].update(description="long " * 400))
        refused(own_desk, RequestError, "2048")

    def test_a_base_without_its_weights(self, own_desk: Path) -> None:
        (own_desk / "base" / "model.safetensors").unlink()
        refused(own_desk, CheckpointError, "model.safetensors")

    def test_a_profile_that_nobody_knows(self, own_desk: Path) -> None:
        (own_desk / "external.yaml").write_text(EXTERNAL + "profile: cpu-x46\n", encoding="utf-8")
        refused(own_desk, ProfileError, "cpu-x46", "cpu-x64")

    def test_an_output_that_exists(self, own_desk: Path, tmp_path: Path) -> None:
        (tmp_path / "bundle").mkdir()
        with pytest.raises(OutputError, match="bundle"):
            run.run(read_spec(own_desk / "external.yaml"), tmp_path / "bundle")
        assert list((tmp_path / "bundle").iterdir()) == []


# ---- compared with PEFT ----


def test_the_report_is_in_the_bundle_and_in_the_answer(exported: Exported) -> None:
    report = ParityReport.model_validate_json((exported.bundle / "parity.json").read_bytes())
    assert report == exported.report.parity
    assert report.prompts == 2
    compared = {stage.stage: stage for stage in report.stages}
    stages_of = [f"selection.{entry.toolset.name}" for entry in exported.manifest.toolsets]
    stages_of += [f"arguments.{e.toolset.name}.{tool}" for e in exported.manifest.toolsets for tool in e.arguments]
    assert set(stages_of) <= compared.keys()
    assert any(stage.adapter is None for stage in report.stages)  # the base, one way or the other
    for stage in report.stages:
        assert stage.before_quantization is not None
        assert stage.before_quantization < EXACT
        assert stage.choices + stage.arguments == stage.prompts == 2
    assert report.before_quantization_skipped is None


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any base is."""
    monkeypatch.setattr(parity_bundle, "_LARGE", 0)
    monkeypatch.setattr(parity_bundle, "LARGE", 0)
    monkeypatch.setattr(parity_reference, "LARGE", 0)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", ["external", "mixed"])
def test_a_large_base_is_compared_on_its_first_layers(
    name: str, desk: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By graphs that are made for it: the bundle is what it would be."""
    part = export(desk, name, tmp_path / "bundle")
    whole: Exported = request.getfixturevalue(name)
    assert part.report.parity.depth == Depth(layers=3, compared=2, before_quantization=2)
    assert whole.report.parity.depth == Depth(layers=3, compared=3, before_quantization=3)
    assert "(first 2 of 3 layers)" in part.report.parity.line()
    for mine, other in zip(part.report.parity.stages, whole.report.parity.stages, strict=True):
        assert mine.before_quantization is not None
        assert mine.before_quantization < EXACT
        assert mine.stage == other.stage
        assert 0 < mine.max_error != other.max_error
    files = {file.path: file.sha256 for file in whole.manifest.files if file.path not in ("parity.json", "export.json")}
    assert files.items() <= {file.path: file.sha256 for file in part.manifest.files}.items()


def test_the_depth_can_be_asked_for(own_desk: Path, tmp_path: Path) -> None:
    (own_desk / "external.yaml").write_text(EXTERNAL + "parity: {prompts: 1, layers: 2}\n", encoding="utf-8")
    report = export(own_desk, "external", tmp_path / "bundle").report.parity
    assert report.depth == Depth(layers=3, compared=2, before_quantization=2)


@pytest.mark.parametrize("depth", ["whole", "large"])
def test_an_adapter_that_is_written_wrong_is_refused(
    depth: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if depth == "large":
        request.getfixturevalue("large")

    def write_adapter(weights: AdapterWeights, slots: SlotMap, path: Path) -> None:
        if "writers" in str(weights.folder) and weights.folder.name == "read":
            pairs = {module: replace(pair, scale=2.0) for module, pair in weights.pairs.items()}  # α/r, not α/√r
            weights = replace(weights, pairs=pairs)
        real(weights, slots, path)

    told: list[ParityReport] = []

    def tell(_model: str, report: ParityReport) -> None:
        told.append(report)

    real = graphs.write_adapter
    monkeypatch.setattr(graphs, "write_adapter", write_adapter)
    with pytest.raises(ParityError, match="before quantization") as caught:
        run.run(read_spec(desk / "external.yaml"), tmp_path / "out" / "bundle", on_comparison=tell)
    assert caught.value.where == "adapter arguments.files.read"
    assert [len(report.stages) for report in told] == [4]
    assert not (tmp_path / "out" / "bundle").exists()


def test_an_adapter_that_is_merged_wrong_is_refused(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def merged_weights(checkpoint: Checkpoint, adapter: AdapterWeights, *, scratch: Path) -> Iterator[Weights]:
        pairs = {module: replace(pair, scale=2.0) for module, pair in adapter.pairs.items()}  # α/r, not α/√r
        with real(checkpoint, replace(adapter, pairs=pairs), scratch=scratch) as weights:
            yield weights

    real = graphs.merged_weights
    monkeypatch.setattr(graphs, "merged_weights", merged_weights)
    with pytest.raises(ParityError, match="before quantization") as caught:
        run.run(read_spec(desk / "mixed.yaml"), tmp_path / "out" / "bundle")
    assert caught.value.where == "adapter arguments.files.read"
    assert not (tmp_path / "out" / "bundle").exists()


def test_a_limit_of_the_users_own_is_enforced(own_desk: Path) -> None:
    text = EXTERNAL + "parity: {prompts: 1, before_quantization: false, limits: {max_kl: 0}}\n"
    (own_desk / "external.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParityError, match=r"KL divergence .* at most 0"):
        run.run(read_spec(own_desk / "external.yaml"), own_desk / "bundle")
    assert not (own_desk / "bundle").exists()


def test_switched_off_is_written_down(own_desk: Path, tmp_path: Path) -> None:
    (own_desk / "external.yaml").write_text(EXTERNAL + "parity: off\n", encoding="utf-8")
    off = export(own_desk, "external", tmp_path / "bundle")
    assert off.report.parity == ParityReport(skipped="it was switched off")
    assert ParityReport.model_validate_json((off.bundle / "parity.json").read_bytes()) == off.report.parity
    assert "parity.json" in {file.path for file in off.manifest.files}


def test_conversations_of_the_users_own_are_compared(own_desk: Path, tmp_path: Path) -> None:
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "read", "arguments": {"path": "a"}}}]}
    lines = ["read it", [{"role": "user", "content": "read a"}, called]]
    text = "\n".join(map(json.dumps, lines))
    (own_desk / "own.jsonl").write_text(text, encoding="utf-8")
    asked = EXTERNAL + "parity: {prompts: 1, before_quantization: false, calibration: own.jsonl}\n"
    (own_desk / "external.yaml").write_text(asked, encoding="utf-8")
    report = export(own_desk, "external", tmp_path / "bundle").report.parity
    prompts = {stage.stage: stage.prompts for stage in report.stages}
    assert (report.calibration, report.before_quantization_skipped) == (2, "the spec says so")
    assert (prompts["base"], prompts["selection.files"]) == (1, 3)
    own = prompts["arguments.files.read"] - 1, prompts["arguments.files.write"] - 1
    assert own in {(2, 0), (1, 1), (1, 0)}  # what was not said is as the reference chooses; `roots` has no stage


@pytest.mark.usefixtures("no_work")
def test_a_bad_line_of_theirs_is_refused_before_any_work(own_desk: Path) -> None:
    (own_desk / "own.jsonl").write_text('"read it"\n{"text": 1}\n', encoding="utf-8")
    (own_desk / "external.yaml").write_text(EXTERNAL + "parity: {calibration: own.jsonl}\n", encoding="utf-8")
    refused(own_desk, DataError, "own.jsonl, line 2", "'text'")


# ---- interrupted, at whichever step: no output, and what is finished is kept (test_resume.py goes on from there) ----

STEPS = (
    "build_graph", "add_slots", "write_adapter", "merged_weights", "Trial", "compare_bundle", "write_prompts",
    "write_manifest",
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("quick_work")
def test_an_interrupted_export_has_no_output(
    desk: Path, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = next(module for module in (graphs, models, run) if hasattr(module, step))
    work = getattr(where, step)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)  # what it writes is there
        raise KeyboardInterrupt

    monkeypatch.setattr(where, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(read_spec(desk / "mixed.yaml"), tmp_path / "out" / "bundle")
    kept = [] if step == "build_graph" else [tmp_path / "out" / ".bundle.partial"]
    assert list((tmp_path / "out").iterdir()) == kept


@pytest.mark.usefixtures("quick_work")
def test_an_adapter_that_does_nothing_is_refused(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_adapter(_: object, slots: SlotMap, path: Path) -> None:
        real(replace(some, pairs={}), slots, path)

    real, some = graphs.write_adapter, read_adapter(desk / "chooser", read_checkpoint(desk / "base"), "external")
    monkeypatch.setattr(graphs, "write_adapter", write_adapter)
    with pytest.raises(GraphError, match=r"selection\.files") as caught:
        run.run(read_spec(desk / "mixed.yaml"), tmp_path / "out" / "bundle")
    assert "bit for bit" in caught.value.found
    assert not (tmp_path / "out" / "bundle").exists()


@pytest.mark.usefixtures("quick_work")
def test_an_adapter_that_changes_during_the_export_is_refused(
    own_desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_slots(*args: Any, **kwargs: Any) -> SlotMap:
        shutil.copyfile(
            own_desk / "writers" / "read" / "adapter_model.safetensors",
            own_desk / "chooser" / "adapter_model.safetensors",
        )
        return real(*args, **kwargs)

    inputs, real = read_inputs(read_spec(own_desk / "mixed.yaml")), graphs.add_slots
    monkeypatch.setattr(run, "read_inputs", lambda _: inputs)
    monkeypatch.setattr(graphs, "add_slots", add_slots)
    with pytest.raises(AdapterError, match="a moment ago") as caught:
        run.run(read_spec(own_desk / "mixed.yaml"), tmp_path / "out" / "bundle")
    assert caught.value.where == str(own_desk / "chooser")
    assert not (tmp_path / "out" / "bundle").exists()
