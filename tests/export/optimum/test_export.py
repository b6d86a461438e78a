"""An export with Optimum's graph: its parts are its own, and its bundle answers; the exporter itself, where it is."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.base.architectures import ARCHITECTURES
from dualtune_edge.export.optimum.read import read_folder
from dualtune_edge.export.optimum.trace import legacy, trace
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.steps import Steps
from dualtune_edge.export.run import run
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.profiles import catalog
from dualtune_edge.runtime import Agent
from dualtune_edge.toolkit.errors import GraphError, MissingExtraError, SpecError

PYTHON = os.environ.get("DUALTUNE_OPTIMUM_PYTHON")  # of an environment with the extra `export-optimum`
TOOLS = [
    {"name": "stop", "description": "Stop.", "inputSchema": {"type": "object", "properties": {}}},
    {"name": "go", "description": "Go.", "inputSchema": {"type": "object", "properties": {}}},
]


@pytest.fixture
def spec(make_traced: Any, tmp_path: Path) -> ExportSpec:
    traced = make_traced("qwen3")
    base = Path(shutil.copytree(traced.checkpoint.folder, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    longer = json.dumps(config | {"max_position_embeddings": 2048})  # of which the graph knows nothing
    (base / "config.json").write_text(longer, encoding="utf-8")
    (tmp_path / "tools.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    asked = ExportSpec.from_flags(base, tmp_path / "tools.json", graph=traced.folder)
    return asked.model_copy(update={"parity": None, "prefix_states_mb": 0})


def test_the_bundle_answers(spec: ExportSpec, tmp_path: Path) -> None:
    run(spec, tmp_path / "bundle")
    with Agent.open(tmp_path / "bundle") as agent:
        assert agent.call("go").tool in {"go", "stop"}


def test_a_part_made_of_it_is_none_of_the_builders(spec: ExportSpec) -> None:
    inputs = read_inputs(spec), read_inputs(spec.model_copy(update={"graph": None}))
    assert len({Steps(inputs_of_export).weights for inputs_of_export in inputs}) == 2


def test_a_folder_that_does_not_exist_is_named_by_its_flag(spec: ExportSpec, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--graph: found .*none"):
        ExportSpec.from_flags(spec.base, tmp_path / "tools.json", graph=tmp_path / "none")


def test_an_architecture_that_is_not_known_is_refused_by_name(make_traced: Any) -> None:
    traced = make_traced("qwen3")
    other = dataclasses.replace(traced.checkpoint, architecture=ARCHITECTURES["Gemma2ForCausalLM"])
    with pytest.raises(GraphError, match=r"Gemma2ForCausalLM.*onnxruntime-genai's builder"):
        read_folder(traced.folder, other)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rope_type": "default", "rope_theta": 5.0}, {"rope_theta": 5.0}),
        (
            {"rope_type": "llama3", "rope_theta": 5.0, "factor": 8.0},
            {"rope_theta": 5.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ),
        (
            {"full_attention": {"rope_type": "default", "rope_theta": 6.0}, "sliding_attention": {"rope_theta": 1.0}},
            {"rope_theta": 6.0, "rope_local_base_freq": 1.0},
        ),
        (
            {
                "rope_type": "longrope",
                "rope_theta": 1.0,
                "partial_rotary_factor": 0.5,
                "short_factor": [1.0],
                "long_factor": [2.0],
                "original_max_position_embeddings": 96,
            },
            {
                "rope_theta": 1.0,
                "partial_rotary_factor": 0.5,
                "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
            },
        ),
    ],
)
def test_a_config_as_transformers_4_reads_it(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert legacy({"model_type": "x", "rope_parameters": given}) == {"model_type": "x", **expected}


@given(st.dictionaries(st.text(), st.integers()))
def test_a_config_that_transformers_4_wrote_stays(config: dict[str, int]) -> None:
    config.pop("rope_parameters", None)
    assert legacy(config) == config


def test_without_the_exporter_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="export-optimum"):
        trace(tmp_path, output=tmp_path / "out")


@pytest.mark.skipif(PYTHON is None, reason="DUALTUNE_OPTIMUM_PYTHON names no environment with export-optimum")
@pytest.mark.parametrize("name", ["llama3", "gemma3"])
def test_what_the_exporter_writes_is_read(name: str, make_traced: Any, tmp_path: Path) -> None:
    traced = make_traced(name)
    asked = ("trace", str(traced.checkpoint.folder), "-o", str(tmp_path / "graph"))
    subprocess.run([str(PYTHON), "-m", "dualtune_edge", *asked], check=True)
    found, expected = (read_folder(folder, traced.checkpoint) for folder in (tmp_path / "graph", traced.folder))
    assert found.layers == expected.layers
    for one, other in zip(found.rotaries, expected.rotaries, strict=True):
        np.testing.assert_array_equal(one.cos, other.cos)
    assert len(ir.load(tmp_path / "graph/model.onnx").graph) == len(ir.load(traced.folder / "model.onnx").graph)


def test_a_profile_with_a_static_graph_is_refused_with_it(spec: ExportSpec) -> None:
    static = [profile.name for profile in catalog.profiles() if profile.graph.form != "dynamic"]
    with pytest.raises(SpecError, match=static[0]):
        read_inputs(spec.model_copy(update={"profiles": (static[0],)}))
