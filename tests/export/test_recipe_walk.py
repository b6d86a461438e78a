"""`quantization: auto`: the first recipe within the limits, what was refused before it, and nothing done twice."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.export import run
from dualtune_edge.export.build import graphs
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.steps import Steps
from dualtune_edge.export.publish.report import ExportReport
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.export.spec import recipes
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.journal import Step
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import EngineKind
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import ParityError, SpecError

TOOLS = [
    {"name": "read", "description": "Read a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
    {"name": "write", "description": "Write a file", "inputSchema": {"properties": {"path": {"type": "string"}}}},
]
SPEC = """\
base: base
quantization: %s
parity: {prompts: 1, argument_tokens: 4, limits: {max_kl: %g, max_sure_flips: 1}}
prefix_states_mb: 0
toolsets: [{name: files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}]
"""
TWO = {name: recipes.RECIPES[name] for name in ("int4-128", "int8-32")}
BETWEEN = 1e-2  # nats: on random weights int4 is above, int8 below


@pytest.fixture(scope="module")
def desk(base_and_adapters: Path) -> Path:
    folder = base_and_adapters
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def two_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", TWO)


def command(arguments: Sequence[str | Path]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def export(
    desk: Path,
    output: Path,
    quantization: str = "auto",
    max_kl: float = BETWEEN,
    tell: Callable[[str, ParityReport], None] = lambda *_: None,
) -> ExportReport:
    path = desk / "dualtune.yaml"
    path.write_text(SPEC % (quantization, max_kl), encoding="utf-8")
    return run.run(read_spec(path), output, on_comparison=tell)


@pytest.fixture(scope="module")
def walked(desk: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "RECIPES", TWO)
        export(desk, desk / "walked")
    return desk / "walked"


def test_the_first_within_the_limits_is_taken_and_the_others_are_told(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "dualtune.yaml").write_text(SPEC % ("int4-128", BETWEEN), encoding="utf-8")
    spec, output = desk / "dualtune.yaml", tmp_path / "bundle"
    assert command(["export", spec, "-o", output, "--quantization", "auto", "--json"]) == 0
    printed = capsys.readouterr()
    (refused,) = json.loads(printed.out)["parity"]["refused"]
    assert refused["recipe"] == "int4-128"
    assert refused["quantization"] == Quantization(block_size=128).model_dump()
    assert refused["max_kl"] > BETWEEN
    assert "a KL divergence of" in refused["why"]
    assert f"recipe int4-128 refused: {refused['why']}" in printed.err
    bundle = open_bundle(output)
    assert bundle.manifest.quantization == Quantization(bits=8, algorithm="rtn")
    assert bundle.parity is not None
    assert bundle.parity.model_dump(mode="json") == json.loads(printed.out)["parity"]
    assert command(["inspect", output]) == 0
    shown = capsys.readouterr().out
    assert "int8, rtn, blocks of 32, accuracy level 4" in shown
    assert "recipes refused: 1" in shown


def test_the_graphs_are_those_of_the_recipe_alone(desk: Path, walked: Path, tmp_path: Path) -> None:
    report = export(desk, tmp_path / "bundle", "int8-32")
    assert report.parity.refused == ()
    for path in (tmp_path / "bundle").rglob("*"):
        if path.is_file() and path.name not in {"export.json", "manifest.json", "manifest.sha256", "parity.json"}:
            assert path.read_bytes() == (walked / path.relative_to(tmp_path / "bundle")).read_bytes(), path
    names = {part["name"] for part in json.loads((walked / "export.json").read_bytes())["parts"]}
    alone = {part["name"] for part in json.loads((tmp_path / "bundle/export.json").read_bytes())["parts"]}
    assert names == alone  # nothing of the refused recipe


def test_the_float32_side_is_not_computed_again(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second recipe of the same bits answers the same; the reference is not even opened."""
    same = Quantization(bits=8, algorithm="rtn")
    monkeypatch.setattr(recipes, "RECIPES", {"int8-32": same, "int4-128": same})
    monkeypatch.setattr(recipes, "name_of", lambda _: "one of two")
    opened: list[Path] = []
    built: list[int] = []
    init, build = TorchEngine.__init__, graphs.build_graph

    def note_opened(self: TorchEngine, base: Path, *rest: Any, **more: Any) -> None:
        opened.append(base)
        init(self, base, *rest, **more)

    def note_built(checkpoint: Any, out: Path, quantization: Quantization, **more: Any) -> None:
        built.append(quantization.bits)
        build(checkpoint, out, quantization, **more)

    monkeypatch.setattr(TorchEngine, "__init__", note_opened)
    monkeypatch.setattr(graphs, "build_graph", note_built)
    reports: list[ParityReport] = []
    with pytest.raises(ParityError):
        export(desk, tmp_path / "bundle", max_kl=0, tell=lambda _, report: reports.append(report))
    assert len(reports[0].refused) == 2
    assert len(opened) == 1
    assert built.count(32) == 2  # the base and the merged adapter, once each
    assert all(stage.before_quantization is not None for stage in reports[0].stages)


def test_what_is_remembered_is_of_this_base_and_these_adapters(desk: Path) -> None:
    (desk / "dualtune.yaml").write_text(SPEC % ("auto", 1), encoding="utf-8")
    inputs = read_inputs(read_spec(desk / "dualtune.yaml"))
    (toolset,) = inputs.toolsets
    assert toolset.selection is not None
    retrained = replace(toolset, selection=toolset.selection.model_copy(update={"sha256": "0" * 64}))
    same = replace(inputs, quantization=Quantization(bits=8))
    others = (
        Steps(replace(inputs, toolsets=(retrained,))).reference(2),
        Steps(replace(inputs, checkpoint=replace(inputs.checkpoint, fingerprint="0"))).reference(2),
        Steps(inputs).reference(1),
    )
    mine = Steps(inputs).reference(2)
    assert Steps(same).reference(2) == mine
    assert all(other.key != mine.key for other in others)


def test_where_none_is_within_the_limits_the_best_ones_figures_are_told(desk: Path, tmp_path: Path) -> None:
    reports: list[ParityReport] = []
    with pytest.raises(ParityError, match=r"by the best of 2 recipes.*Allow more in the spec"):
        export(desk, tmp_path / "bundle", max_kl=0, tell=lambda _, report: reports.append(report))
    assert not (tmp_path / "bundle").exists()
    (report,) = reports
    first, second = report.refused
    assert (first.recipe, second.recipe) == ("int4-128", "int8-32")
    assert second.max_kl < first.max_kl
    assert max(stage.mean_kl for stage in report.stages) == second.max_kl


def test_a_graph_that_is_not_the_model_ends_it_at_once(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dualtune_edge.export.compare import verdict

    monkeypatch.setattr(verdict, "EXACT", 1e-12)
    reports: list[ParityReport] = []
    with pytest.raises(ParityError, match="off before quantization"):
        export(desk, tmp_path / "bundle", tell=lambda _, report: reports.append(report))
    assert reports[0].refused == ()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Not one that anything catches."""


def test_killed_and_started_again_it_ends_in_the_same_bundle(
    desk: Path, walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 8 parts one stage of the first recipe was compared, after 10 more one of the second."""
    left, real, finished = [8, 10], Work.keep, 0

    def keep(work: Work, step: Step, *files: Path, value: str = "") -> None:
        nonlocal finished
        real(work, step, *files, value=value)
        finished += 1
        if left and finished == left[0]:
            left.pop(0)
            finished = 0
            raise Killed

    monkeypatch.setattr(Work, "keep", keep)
    for _ in range(2):
        with pytest.raises(Killed):
            export(desk, tmp_path / "bundle")
    export(desk, tmp_path / "bundle")
    assert contents(tmp_path / "bundle") == contents(walked)


@pytest.mark.parametrize("flags", [["--no-parity"], []])
def test_auto_without_a_comparison_is_refused(
    flags: Sequence[str], desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SPEC % ("auto", 1)
    spec = desk / "dualtune.yaml"
    spec.write_text(text if flags else text.replace("parity: {", "parity: off #"), encoding="utf-8")
    assert command(["export", spec, "-o", tmp_path / "bundle", *flags]) == SpecError.exit_code
    said = capsys.readouterr().err
    assert "`auto`, and no comparison with PEFT" in said
    assert "int4-128" in said


def test_auto_for_profiles_that_need_several_models_is_refused(desk: Path, tmp_path: Path) -> None:
    (desk / "dualtune.yaml").write_text(SPEC % ("auto", 1), encoding="utf-8")
    known = resources.files("dualtune_edge.profiles").joinpath("data", "cpu-x64.toml").read_text(encoding="utf-8")
    files = []
    for level in ("1", "4"):
        text = known.replace("accuracy_level = 4", f"accuracy_level = {level}").replace('"cpu-x64"', f'"level-{level}"')
        files.append(tmp_path / f"{level}.toml")
        files[-1].write_text(text, encoding="utf-8")
    spec = read_spec(desk / "dualtune.yaml").model_copy(update={"profiles": tuple(map(str, files))})
    with pytest.raises(SpecError, match=r"`auto`, and profiles for which \d models are built"):
        run.run(spec, tmp_path / "bundle")


@pytest.fixture(scope="module")
def mixed(desk: Path) -> Path:
    export(desk, desk / "mixed", "k-quant-32-mixed", max_kl=10)
    return desk / "mixed"


@pytest.mark.parametrize("engine", ["ort", "genai"])
def test_both_engines_answer_with_mixed_bits(engine: EngineKind, mixed: Path) -> None:
    with Agent.open(mixed, engine=engine) as agent:
        assert agent.call("read it", offered={"files": {"read"}}, required=True, toolset="files").tool == "read"


def test_the_manifest_says_which_bits_are_mixed(mixed: Path) -> None:
    manifest = json.loads((mixed / "manifest.json").read_bytes())
    assert {key: manifest["quantization"][key] for key in ("bits", "lm_head_bits", "sensitive_bits")} == {
        "bits": 4, "lm_head_bits": 8, "sensitive_bits": 8,
    }  # fmt: skip


def test_plain_onnxruntime_genai_opens_mixed_bits(mixed: Path) -> None:
    import onnxruntime_genai as og

    for folder in ("model", "merged/arguments.files.read"):
        model = og.Model(str(mixed / folder))
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=8)
        generator = og.Generator(model, params)
        generator.append_tokens([1, 2, 3])
        generator.generate_next_token()
        assert len(generator.get_sequence(0)) == 4
