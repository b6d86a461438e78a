"""A whole bundle compared with PEFT: the report, a large base, limits, conversations of the user's own."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from export_desk import Desk, Exported

from dualtune_edge.export import run
from dualtune_edge.export.adapter.read import AdapterWeights
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.weights import Weights
from dualtune_edge.export.build import graphs
from dualtune_edge.export.compare import bundle as compared_bundle
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.reference import open as opened
from dualtune_edge.toolkit.bundle.parity import EXACT, Depth, ParityReport
from dualtune_edge.toolkit.errors import DataError, ParityError


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
    monkeypatch.setattr(compared_bundle, "_LARGE", 0)
    monkeypatch.setattr(compared_bundle, "LARGE", 0)
    monkeypatch.setattr(opened, "LARGE", 0)


@pytest.mark.parametrize("name", ["external", "mixed"])
def test_a_large_base_is_compared_on_its_first_layers(
    name: str, desk: Desk, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By graphs that are made for it: the bundle is what it would be."""
    whole: Exported = request.getfixturevalue(name)  # before any base is large
    request.getfixturevalue("large")
    part = desk.export(name, tmp_path / "bundle")
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


def test_the_depth_can_be_asked_for(own_desk: Desk, tmp_path: Path) -> None:
    own_desk.add("parity: {prompts: 1, layers: 2}\n")
    report = own_desk.export("external", tmp_path / "bundle").report.parity
    assert report.depth == Depth(layers=3, compared=2, before_quantization=2)


@pytest.mark.parametrize("depth", ["whole", "large"])
def test_an_adapter_that_is_written_wrong_is_refused(
    depth: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if depth == "large":
        request.getfixturevalue("large")

    def write_adapter(weights: AdapterWeights, slots: SlotMap, path: Path) -> None:
        if "writers" in str(weights.folder) and weights.folder.name == "read":
            pairs = {module: replace(pair, scale=2.0) for module, pair in weights.pairs.items()}  # α/r, not α/√r
            weights = replace(weights, pairs=pairs)
        real(weights, slots, path)

    reports: list[ParityReport] = []

    def tell(_model: str, report: ParityReport) -> None:
        reports.append(report)

    real = graphs.write_adapter
    monkeypatch.setattr(graphs, "write_adapter", write_adapter)
    with pytest.raises(ParityError, match="before quantization") as caught:
        run.run(desk.spec("external"), tmp_path / "out" / "bundle", on_comparison=tell)
    assert caught.value.where == "adapter arguments.files.read"
    assert [len(report.stages) for report in reports] == [4]
    assert not (tmp_path / "out" / "bundle").exists()


def test_an_adapter_that_is_merged_wrong_is_refused(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def merged_weights(checkpoint: Checkpoint, adapter: AdapterWeights, *, scratch: Path) -> Iterator[Weights]:
        pairs = {module: replace(pair, scale=2.0) for module, pair in adapter.pairs.items()}  # α/r, not α/√r
        with real(checkpoint, replace(adapter, pairs=pairs), scratch=scratch) as weights:
            yield weights

    real = graphs.merged_weights
    monkeypatch.setattr(graphs, "merged_weights", merged_weights)
    with pytest.raises(ParityError, match="before quantization") as caught:
        run.run(desk.spec("mixed"), tmp_path / "out" / "bundle")
    assert caught.value.where == "adapter arguments.files.read"
    assert not (tmp_path / "out" / "bundle").exists()


def test_a_limit_of_the_users_own_is_enforced(own_desk: Desk) -> None:
    own_desk.add("parity: {prompts: 1, before_quantization: false, limits: {max_kl: 0}}\n")
    with pytest.raises(ParityError, match=r"KL divergence .* at most 0"):
        run.run(own_desk.spec("external"), own_desk.folder / "bundle")
    assert not (own_desk.folder / "bundle").exists()


def test_switched_off_is_written_down(own_desk: Desk, tmp_path: Path) -> None:
    own_desk.add("parity: off\n")
    off = own_desk.export("external", tmp_path / "bundle")
    assert off.report.parity == ParityReport(skipped="it was switched off")
    assert ParityReport.model_validate_json((off.bundle / "parity.json").read_bytes()) == off.report.parity
    assert "parity.json" in {file.path for file in off.manifest.files}


def test_conversations_of_the_users_own_are_compared(own_desk: Desk, tmp_path: Path) -> None:
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "read", "arguments": {"path": "a"}}}]}
    lines = ["read it", [{"role": "user", "content": "read a"}, called]]
    text = "\n".join(map(json.dumps, lines))
    (own_desk.folder / "own.jsonl").write_text(text, encoding="utf-8")
    own_desk.add("parity: {prompts: 1, before_quantization: false, calibration: own.jsonl}\n")
    report = own_desk.export("external", tmp_path / "bundle").report.parity
    prompts = {stage.stage: stage.prompts for stage in report.stages}
    assert (report.calibration, report.before_quantization_skipped) == (2, "the spec says so")
    assert (prompts["base"], prompts["selection.files"]) == (1, 3)
    own = prompts["arguments.files.read"] - 1, prompts["arguments.files.write"] - 1
    assert own in {(2, 0), (1, 1), (1, 0)}  # what was not said is as the reference chooses; `roots` has no stage


@pytest.mark.usefixtures("no_work")
def test_a_bad_line_of_theirs_is_refused_before_any_work(own_desk: Desk) -> None:
    (own_desk.folder / "own.jsonl").write_text('"read it"\n{"text": 1}\n', encoding="utf-8")
    own_desk.add("parity: {calibration: own.jsonl}\n")
    own_desk.refused(DataError, "own.jsonl, line 2", "messages")
