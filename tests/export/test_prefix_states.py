"""Which states are written: all, or the choices first as far as a budget goes; the same bytes each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from peft import LoraConfig

from dualtune_edge.export import stages
from dualtune_edge.export.graphs import BundleGraphs
from dualtune_edge.export.inputs import read_inputs
from dualtune_edge.export.plan import plan_prompts
from dualtune_edge.export.prefix_states import States, write_states
from dualtune_edge.export.progress import Stages
from dualtune_edge.export.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from dualtune_edge.export.spec import read_spec
from dualtune_edge.export.work_folder import Work
from dualtune_edge.runtime.bundle import open_bundle
from dualtune_edge.toolkit.errors import SpecError

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
Write = Callable[[int | None], tuple[Path, States]]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without states, and what it was made of."""
    desk = tmp_path_factory.mktemp("desk")
    write_checkpoint(desk / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(MODULES), task_type="CAUSAL_LM")
    write_adapter(desk / "adapter", desk / "base", config, seed=1)
    (desk / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (desk / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    report = stages.run(read_spec(desk / "dualtune.yaml"), desk / "bundle")
    assert report.sizes.states == 0
    assert any("7 stages have none" in warning for warning in report.warnings)
    return desk


@pytest.fixture
def write(desk: Path, tmp_path: Path) -> Write:
    """Write states, of so many MB at most, beside the bundle's graphs; their folder."""
    inputs = read_inputs(read_spec(desk / "dualtune.yaml"))
    plans = plan_prompts(inputs)

    def write(budget: int | None) -> tuple[Path, States]:
        output = tmp_path / f"{budget}-{len(list(tmp_path.iterdir()))}"
        with Stages() as shown, Work(output, reuse=desk / "bundle") as work:
            graphs = BundleGraphs(inputs, work, shown)
            graphs.build()
            return work.folder, write_states(inputs, plans, work, graphs=graphs, budget=budget, stages=shown)

    return write


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


def test_the_choices_come_first_within_a_budget(write: Write) -> None:
    folder, states = write(1)
    size = sum(path.stat().st_size for path in (folder / "states").iterdir())
    assert 0 < size <= 1_000_000
    assert {"toolset", "selection.files"} <= states.entries.keys()
    assert len(states.entries) < 7
    (warning,) = states.warnings
    assert f"{7 - len(states.entries)} stages have none" in warning


@pytest.mark.parametrize("value", ["-1", "many", "1.5"])
def test_a_budget_that_is_none(desk: Path, value: str) -> None:
    path = desk / f"{value}.yaml"
    path.write_text(SPEC.replace("states_mb: 0", f"states_mb: {value}"), encoding="utf-8")
    with pytest.raises(SpecError, match="prefix_states_mb"):
        read_spec(path)
