"""Which states are written: all, or the choices first as far as a budget goes; the same bytes each time."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from numpy.typing import NDArray
from peft import LoraConfig

from dualtune_edge.export import run
from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.compare.bundle import BundleComparison
from dualtune_edge.export.compare.verdict import first_breach
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.prompts import plan_prompts
from dualtune_edge.export.plan.subjects import subjects
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.export.spec.recipes import StatesType
from dualtune_edge.export.states import rounded as rounded_states
from dualtune_edge.export.states import writer
from dualtune_edge.export.states.write import States, WantedStates, state_files, write_states
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.toolkit.bundle.kv_states import StateEntry
from dualtune_edge.toolkit.bundle.parity import ParityLimits
from dualtune_edge.toolkit.errors import ParityError, SpecError

TOOLS = [
    {"name": name, "description": name, "inputSchema": {"properties": {"path": {"type": "string"}}}}
    for name in ("read", "write")
]
SPEC = """\
base: base
parity: off
prefix_states_mb: 0
toolsets:
  - {name: files, description: Files, tools: files.json, selection: adapter, arguments: {read: adapter}}
  - {name: more, description: More, tools: files.json, selection: {path: adapter, mode: merged}}
"""
SHARED = ("files.write", "more.read", "more.write")  # the base's, with equal tools
COMPARED = SPEC.replace("parity: off", "parity: {prompts: 2, argument_tokens: 6}")


class Write(Protocol):
    """Write states beside the bundle's graphs, of so many MB at most; the bundle's folder."""

    def __call__(self, budget: int | None, spec: str = SPEC, kind: StatesType = "float32") -> tuple[Path, States]: ...


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without states, and what it was made of."""
    desk = tmp_path_factory.mktemp("desk")
    write_checkpoint(desk / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(MODULES), task_type="CAUSAL_LM")
    write_adapter(desk / "adapter", desk / "base", config, seed=1)
    (desk / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (desk / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    report = run.run(read_spec(desk / "dualtune.yaml"), desk / "bundle")
    assert report.sizes.states == 0
    assert any("7 stages have none" in warning for warning in report.warnings)
    return desk


@pytest.fixture
def write(desk: Path, tmp_path: Path) -> Write:
    (desk / "compared.yaml").write_text(COMPARED, encoding="utf-8")
    inputs = read_inputs(read_spec(desk / "dualtune.yaml"))
    plans = plan_prompts(inputs)

    def write(budget: int | None, spec: str = SPEC, kind: StatesType = "float32") -> tuple[Path, States]:
        output = tmp_path / f"{budget}-{len(list(tmp_path.iterdir()))}"
        asked = read_spec(desk / ("dualtune.yaml" if spec == SPEC else "compared.yaml"))
        asked = asked.model_copy(update={"prefix_states_type": kind})
        with Progress() as shown, Work(output, reuse=desk / "bundle") as work:
            graphs = BundleGraphs(inputs, work, shown)
            graphs.build()
            return work.folder, write_states(WantedStates(inputs, plans, asked, (), budget), work, graphs, shown)

    return write


def values(folder: Path, entry: StateEntry) -> NDArray[np.generic]:
    return np.fromfile(folder / entry.path, dtype=entry.dtype).reshape(entry.key.shape)


def test_without_states_the_bundle_is_whole_and_names_none(desk: Path) -> None:
    manifest = open_bundle(desk / "bundle").manifest
    assert manifest.states == ()
    assert all(stage.state is None for stage in manifest.stages)
    assert not (desk / "bundle" / "states").exists()


def test_every_stage_has_one_of_its_prefixs_size(desk: Path, write: Write) -> None:
    folder, states = write(None)
    manifest = open_bundle(desk / "bundle").manifest
    assert len(states.entries) == len(list(manifest.stages)) == 7
    assert states.warnings == ()
    for entry in states.entries.values():
        assert entry.key.shape[:3] == (2, 2, 2)
        assert (folder / entry.path).stat().st_size == 4 * prod(entry.key.shape)
    graphs = {name: entry.key.graph for name, entry in states.entries.items()}
    assert graphs["selection.files"] != graphs["selection.more"]  # external and merged
    assert graphs["toolset"] == graphs["arguments.files.write"]  # both the base
    assert graphs["toolset"] != graphs["selection.files"]


def test_the_same_bytes_again(write: Write) -> None:
    (one, _), (other, _) = write(None), write(None)
    names = sorted(path.name for path in (one / "states").iterdir())
    assert names == sorted(path.name for path in (other / "states").iterdir())
    for name in names:
        assert (one / "states" / name).read_bytes() == (other / "states" / name).read_bytes(), name


def test_a_comparison_leaves_the_states_that_are_computed_without_one(desk: Path, write: Write, tmp_path: Path) -> None:
    folder, states = write(None)
    spec = read_spec(desk / "compared.yaml").model_copy(update={"prefix_states_mb": None})
    computed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "OrtEngine", lambda *_: computed.append(1))  # none is opened
        run.run(spec, tmp_path / "compared")
    assert computed == []
    for entry in states.entries.values():
        assert (folder / entry.path).read_bytes() == (tmp_path / "compared" / entry.path).read_bytes(), entry.path
    assert not (tmp_path / "compared" / "scratch").exists()


@pytest.mark.usefixtures("write")
def test_a_comparison_that_leaves_states_is_another_part(desk: Path, tmp_path: Path) -> None:
    """It cuts prompts at their prefix, so its figures differ in rounding. What stages share is cut in any case."""
    spec = read_spec(desk / "compared.yaml")
    assert spec.parity
    inputs = read_inputs(spec)
    plans = plan_prompts(inputs)
    with Progress() as shown, Work(tmp_path / "out", reuse=desk / "bundle") as work:
        graphs = BundleGraphs(inputs, work, shown)
        graphs.build()
        files = state_files(WantedStates(inputs, plans, spec, (), None), work, graphs)
        assert state_files(WantedStates(inputs, plans, spec, (), 0), work, graphs) == {}
        plain = BundleComparison(inputs, subjects(plans, 1), spec.parity, work, graphs, ())
        leaving = replace(plain, state_files=files)
    assert len(leaving.beginnings) == len(plain.steps) == 7
    shared = {name for name, beginning in leaving.beginnings.items() if beginning.shared}
    assert shared == plain.beginnings.keys() == {f"arguments.{name}" for name in SHARED}
    assert {name for name, step in plain.steps.items() if step.key == leaving.steps[name].key} == shared


def test_the_choices_come_first_within_a_budget(write: Write) -> None:
    folder, states = write(1)
    size = sum(path.stat().st_size for path in (folder / "states").iterdir())
    assert 0 < size <= 1_000_000
    assert {"toolset", "selection.files"} <= states.entries.keys()
    assert len(states.entries) < 7
    (warning,) = states.warnings
    assert f"{7 - len(states.entries)} stages have none" in warning


@pytest.mark.parametrize("kind", ["float16", "auto"])
def test_in_float16_a_state_is_the_exact_one_rounded_in_half_the_bytes(write: Write, kind: StatesType) -> None:
    (one, exact), (other, rounded) = write(None), write(None, COMPARED, kind)
    assert exact.parity == ()
    assert rounded.warnings == ()
    for name, entry in rounded.entries.items():
        assert (entry.stored, entry.key) == ("float16", exact.entries[name].key)
        assert (other / entry.path).stat().st_size == entry.nbytes == exact.entries[name].nbytes // 2
        expected = values(one, exact.entries[name]).astype(np.float16)
        np.testing.assert_array_equal(values(other, entry), expected)


def test_each_state_in_float16_was_judged_on_each_of_its_stages(write: Write) -> None:
    _, states = write(None, COMPARED, "auto")
    assert [comparison.path for comparison in states.parity] == list(
        dict.fromkeys(entry.path for entry in states.entries.values())
    )
    stages = {stage.stage: stage for comparison in states.parity for stage in comparison.stages}
    assert stages.keys() == states.entries.keys()
    for stage in stages.values():
        assert stage.prompts == 2
        assert (stage.flips, stage.exact) == (0, stage.arguments)
        assert 0 < stage.max_error < 0.1
        assert stage.before_quantization is None


def coarse(exact: Snapshot) -> Snapshot:
    """Rounded beyond recognition."""
    return Snapshot(exact.identity, exact.tokens, np.zeros(np.shape(exact.state), dtype=np.float16))


def test_auto_keeps_what_answers_otherwise_and_float16_refuses_beyond_a_limit(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounded_states, "_rounded", coarse)
    folder, states = write(None, COMPARED, "auto")
    kept = {comparison.path: comparison.exact_because for comparison in states.parity}
    assert any("differ" in (why or "") for why in kept.values())
    for entry in states.entries.values():
        assert entry.stored == (None if kept[entry.path] else "float16")
        assert (folder / entry.path).stat().st_size == entry.nbytes
    (warning,) = states.warnings
    assert f"{sum(map(bool, kept.values()))} of {len(kept)} stay in float32" in warning
    limited = ParityLimits(max_kl=0)
    monkeypatch.setattr(rounded_states, "first_breach", lambda stages, _: first_breach(stages, limited))
    with pytest.raises(
        ParityError, match=r"states/toolset.kv in float16: found the base, in stage toolset: a KL divergence"
    ):
        write(None, COMPARED, "float16")


def test_values_that_float16_does_not_reach_stay_or_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(self: OrtEngine, start: int = 0) -> Snapshot:
        taken = snapshot(self, start)
        return Snapshot(taken.identity, taken.tokens, np.asarray(taken.state) * np.float32(1e6))

    snapshot = OrtEngine.snapshot
    monkeypatch.setattr(OrtEngine, "snapshot", large)
    _, states = write(None, COMPARED, "auto")
    assert {comparison.exact_because for comparison in states.parity} == {"values beyond float16's range"}
    assert {entry.stored for entry in states.entries.values()} == {None}
    for spec in (SPEC, COMPARED):
        with pytest.raises(ParityError, match="beyond float16's range"):
            write(None, spec, "float16")


def test_float16_without_a_comparison_is_what_was_asked_for_and_auto_is_refused(desk: Path, write: Write) -> None:
    _, states = write(None, SPEC, "float16")
    assert {entry.stored for entry in states.entries.values()} == {"float16"}
    assert states.parity == ()
    path = desk / "auto.yaml"
    path.write_text(SPEC + "prefix_states_type: auto\n", encoding="utf-8")
    with pytest.raises(SpecError, match="by whose prompts"):
        read_inputs(read_spec(path))


def test_twice_as_many_fit_into_a_budget_in_float16(write: Write) -> None:
    _, states = write(1, SPEC, "float16")
    assert len(states.entries) > len(write(1)[1].entries)
    assert (
        sum(entry.nbytes for entry in {written.path: written for written in states.entries.values()}.values())
        <= 1_000_000
    )


def test_states_are_capped_unless_the_spec_says_null(desk: Path) -> None:
    path = desk / "capped.yaml"
    path.write_text(SPEC.replace("prefix_states_mb: 0\n", ""), encoding="utf-8")
    assert read_spec(path).prefix_states_mb == 10_000
    path.write_text(SPEC.replace("states_mb: 0", "states_mb: null"), encoding="utf-8")
    assert read_spec(path).prefix_states_mb is None
    assert ExportSpec.from_flags(desk / "base", desk / "files.json").prefix_states_mb == 10_000


@pytest.mark.parametrize("value", ["-1", "many", "1.5"])
def test_a_budget_that_is_none(desk: Path, value: str) -> None:
    path = desk / f"{value}.yaml"
    path.write_text(SPEC.replace("states_mb: 0", f"states_mb: {value}"), encoding="utf-8")
    with pytest.raises(SpecError, match="prefix_states_mb"):
        read_spec(path)
