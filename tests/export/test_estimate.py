"""What an export is said to need is enough, and an export that finds less does not begin."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig

from dualtune_edge import cli
from dualtune_edge.export import estimate, models, run
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.build import graphs
from dualtune_edge.export.estimate import Estimate, PhaseNeed
from dualtune_edge.export.graph.adapter_file import write_adapter as write_file
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.layout import ModelLayout
from dualtune_edge.export.plan.prompts import plan_prompts
from dualtune_edge.export.sizes.files import adapter_bytes, base_shape, graph_bytes
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.recipes import RECIPES
from dualtune_edge.export.work import room
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import RoomError

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
WIDE = Shape(256, 512, 2, 4, 2, 8192, 2048)
SHAPES = {
    "tied": WIDE,
    "untied": replace(WIDE, tied=False),
    "packed": replace(
        WIDE, tied=False, model_type="phi3", settings={"original_max_position_embeddings": 2048, "pad_token_id": 0}
    ),
    "gemma": replace(
        WIDE,
        model_type="gemma3_text",
        settings={"hidden_activation": "gelu_pytorch_tanh", "layer_types": ["full_attention", "sliding_attention"]}
        | {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    ),
}
QUANTIZATIONS = [
    Quantization(),
    Quantization(block_size=128, algorithm="k_quant"),
    Quantization(bits=8),
    Quantization(bits=32),
]


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module", params=SHAPES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp(request.param) / "base"
    write_checkpoint(folder, SHAPES[request.param])
    return read_checkpoint(folder)


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=str)
def test_a_graph_is_not_larger_than_said(base: Checkpoint, tmp_path: Path, quantization: Quantization) -> None:
    build_graph(base, tmp_path / "model", quantization)
    add_slots(tmp_path / "model", packed=base.architecture.packed)
    said, found = graph_bytes(base_shape(base), quantization), bytes_in(tmp_path / "model")
    assert found <= said <= 1.15 * found


@pytest.mark.parametrize("modules", [MODULES, ("q_proj", "v_proj"), ("down_proj", "lm_head", "embed_tokens")], ids=str)
def test_an_adapter_is_not_larger_than_said(tiny: Checkpoint, tmp_path: Path, modules: tuple[str, ...]) -> None:
    config = LoraConfig(r=16, target_modules=list(modules), lora_bias="lm_head" not in modules, task_type="CAUSAL_LM")
    write_adapter(tmp_path / "adapter", tiny.folder, config)
    weights = read_adapter(tmp_path / "adapter", tiny, "external")
    build_graph(tiny, tmp_path / "model", Quantization())
    slots = add_slots(tmp_path / "model", extras=weights.extras)
    write_file(weights, slots, tmp_path / "file")
    said, found = adapter_bytes(tmp_path / "adapter", tiny, base_shape(tiny)), (tmp_path / "file").stat().st_size
    assert found <= said <= 1.15 * found


# ---- of a whole export ----


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ExportSpec:
    desk = tmp_path_factory.mktemp("desk")
    write_checkpoint(desk / "base", WIDE)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "writers/read")):
        write_adapter(desk / name, desk / "base", config, seed=seed)
    tools = {"tools": [{"name": "read", "inputSchema": {"properties": {"path": {"type": "string"}}}}]}
    (desk / "files.json").write_text(json.dumps(tools), encoding="utf-8")
    toolset = {"name": "files", "tools": desk / "files.json", "selection": desk / "one"}
    toolset["arguments"] = {"read": {"path": desk / "writers" / "read", "mode": "merged"}}
    parity = {"prompts": 1, "argument_tokens": 4}
    return ExportSpec.model_validate({"base": desk / "base", "toolsets": [toolset], "parity": parity})


def test_nothing_is_written_and_the_truth_is_below(
    spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run.preflight(spec, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    largest = [0]

    def looking(function: Callable[..., object]) -> Callable[..., object]:
        def look(*args: object, **kwargs: object) -> object:
            result = function(*args, **kwargs)
            largest.append(bytes_in(tmp_path))
            return result

        return look

    for module, name in ((graphs, "build_graph"), (graphs, "add_slots"), (models, "write_states")):
        monkeypatch.setattr(module, name, looking(getattr(module, name)))
    report = run.run(spec, tmp_path / "bundle")
    assert report.sizes.total <= said.bundle <= 1.15 * report.sizes.total
    assert max(largest) > report.sizes.total  # the graphs in float32
    assert max(largest) <= said.disk
    expected = [phase.name for phase in said.phases]
    assert [phase.name for phase in report.phases if phase.name in estimate.NEEDS] == expected
    assert {phase.name for phase in report.phases} - set(expected) == {PhaseName.PROMPTS, PhaseName.SLOTS}


def test_it_warns_of_what_the_export_warns_of(spec: ExportSpec, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"messages": [{"role": "user", "content": "a"}], "model": "teacher"}', encoding="utf-8")
    dead = {"name": "read", "inputSchema": {"properties": {"a": {"type": "boolean", "enum": ["x"]}}}}
    tools = tmp_path / "dead.json"
    tools.write_text(json.dumps({"tools": [dead]}), encoding="utf-8")
    assert spec.parity
    parity = spec.parity.model_copy(update={"calibration": own})
    (toolset,) = spec.toolsets
    changed = {"parity": parity, "toolsets": (toolset.model_copy(update={"tools": tools}),)}
    said = run.preflight(spec.model_copy(update=changed), tmp_path / "bundle").warnings
    assert f"{own}: the key 'model' of 1 lines is not read" in said
    assert any("no value fits 'a'" in warning for warning in said)


def test_more_asked_for_is_more_needed(spec: ExportSpec, tmp_path: Path) -> None:
    whole = run.preflight(spec, tmp_path / "bundle")
    bare = run.preflight(spec.model_copy(update={"parity": None, "prefix_states_mb": 0}), tmp_path / "bundle")
    assert bare.bundle < whole.bundle
    assert bare.disk < whole.disk
    assert bare.memory < whole.memory
    assert bare.seconds < whole.seconds


def test_states_of_fewer_bits_are_smaller_and_a_cache_in_int8_is_measured_first(
    spec: ExportSpec, tmp_path: Path
) -> None:
    text = (resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml").read_text(encoding="utf-8")
    profile = tmp_path / "long.toml"
    profile.write_text(text.replace('"cpu-x64"', '"long"').replace('"float32"', '"int8"'), encoding="utf-8")
    whole, half, quarter = (
        {phase.name: phase for phase in run.preflight(spec.model_copy(update=update), tmp_path / "bundle").phases}
        for update in ({}, {"prefix_states_type": "float16"}, {"profiles": (str(profile),)})
    )
    sizes = [estimate["prefix states"].disk for estimate in (whole, half, quarter)]
    assert sizes == [4 * sizes[2], 2 * sizes[2], sizes[2]]
    assert whole.keys() == half.keys() == quarter.keys() - {"measure keys and values"}
    assert quarter["measure keys and values"].memory > quarter["read and check"].memory


def test_recipes_of_different_phases_are_estimated_together(spec: ExportSpec, tmp_path: Path) -> None:
    """`auto` tries one that measures inputs, and others that do not."""
    found = {
        recipe: run.preflight(spec.model_copy(update={"quantization": recipe}), tmp_path / "bundle").phases
        for recipe in (*RECIPES, "auto")
    }
    single = {phase.name for recipe in RECIPES for phase in found[recipe]}
    assert [phase.name for phase in found["auto"]] == [name for name in PhaseName if name in single]


def test_what_variants_share_counts_once(spec: ExportSpec, tmp_path: Path) -> None:
    inputs = read_inputs(spec)
    plans = plan_prompts(inputs)
    alone = estimate.estimate(spec, inputs, plans, tmp_path / "bundle")
    both = estimate.estimate(spec, inputs, plans, tmp_path / "bundle", [inputs])
    own = sum(phase.disk for phase in alone.phases if phase.name in {"prefix states", "write manifest"})
    assert both.bundle == alone.bundle + own
    elsewhere = replace(inputs, layout=ModelLayout.below("variants/other"))
    apart = estimate.estimate(spec, inputs, plans, tmp_path / "bundle", [elsewhere])
    assert apart.bundle == 2 * alone.bundle


@pytest.mark.parametrize(("lacking", "words"), [("free_disk", "--no-parity"), ("free_memory", "--force")])
def test_without_the_room_it_does_not_begin(
    spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, words: str
) -> None:
    def build_graph(*_: object, **__: object) -> None:
        pytest.fail("the work began")

    monkeypatch.setattr(graphs, "build_graph", build_graph)
    monkeypatch.setattr(room, lacking, lambda *_: 1_000_000)
    monkeypatch.setattr(room, "resident", lambda: 0)
    with pytest.raises(RoomError, match=r"1\.0 MB free") as caught:
        run.run(spec, tmp_path / "bundle")
    assert words in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_force_begins_all_the_same(spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_graph(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(graphs, "build_graph", build_graph)
    monkeypatch.setattr(room, "free_disk", lambda _: 0)
    with pytest.raises(KeyboardInterrupt):
        run.run(spec, tmp_path / "bundle", force=True)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()], ids=repr)
def test_room_that_ends_meanwhile_is_told_by_name(
    spec: ExportSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def write_adapter(*_: object) -> None:
        raise error

    kept: list[Path] = []
    monkeypatch.setattr(graphs, "write_adapter", write_adapter)
    with pytest.raises(RoomError, match="--dry-run"):
        run.run(spec, tmp_path / "bundle", on_kept=lambda folder, _: kept.append(folder))
    assert list(tmp_path.iterdir()) == kept == [tmp_path / ".bundle.partial"]


NEED = PhaseNeed(name=PhaseName.TRIAL, disk=0, scratch=0, memory=2_000_000_000, seconds=3.0)
SAID = Estimate(
    phases=(NEED,), bundle=5, disk=1_500_000_000, disk_free=10**10, memory=2 * 10**9, memory_free=10**10, seconds=300.0,
    warnings=("a template writes today's date",),
)  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_prints_it_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    def begin(*_: object, **__: object) -> None:
        pytest.fail("the work began")

    monkeypatch.setattr(run, "run", begin)
    monkeypatch.setattr(run, "preflight", lambda *_: SAID)
    (tmp_path / "files.json").write_text("[]", encoding="utf-8")
    flags = ["--base", str(tmp_path), "--tools", str(tmp_path / "files.json"), "-o", str(tmp_path / "bundle")]
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", *flags, "--dry-run", *(["--json"] if as_json else [])])
    assert ended.value.code == 0
    text, warned = capsys.readouterr()
    assert warned == "warning: a template writes today's date\n"
    if as_json:
        assert Estimate.model_validate_json(text) == SAID
    else:
        assert "disk:   1.5 GB at most at a time, of 10.0 GB free" in text
        assert "time:   about 5 min" in text


# ---- what the machine has ----


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("max", "1000\n"), ("current", "700\n"), ("stat", "anon 500\ninactive_file 150\n")):
        (tmp_path / f"memory.{name}").write_text(text, encoding="ascii")
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    assert room.free_memory() == 450
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    assert room.free_memory() > 450


def test_the_disk_is_that_of_a_folder_to_come(tmp_path: Path) -> None:
    assert room.free_disk(tmp_path / "not" / "there") > 0
    assert estimate.gigabytes(12_300_000) == "12.3 MB"
