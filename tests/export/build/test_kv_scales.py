"""Scales of an int8 cache, and a bundle that has one: what is measured, reported, shared and refused."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig

from dualtune_edge.export import run
from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.build import graphs
from dualtune_edge.export.build.kv_scales import KvScales, _partners, _reach, measure
from dualtune_edge.export.build.measured_prompts import measured_prompts
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.prompts import plan_prompts
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent, open_bundle, open_engine
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.toolkit.bundle.layout import PRIMARY
from dualtune_edge.toolkit.errors import ParityError, SpecError

TOOLS = [
    {"name": name, "description": name, "inputSchema": {"properties": {"path": {"enum": ["a", "b"]}}}}
    for name in ("read", "write")
]
SPEC = """\
base: base
parity: {prompts: 1, argument_tokens: 4}
profile: [cpu-x64, long.toml]
toolsets:
  - {name: files, description: Files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}
"""
ONE_THREAD = SessionSettings(intra_op_threads=1)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_checkpoint(folder / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "two")):
        write_adapter(folder / name, folder / "base", config, seed=seed)
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (folder / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    data = resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml"
    text = data.read_text(encoding="utf-8").replace('"cpu-x64"', '"long"').replace('"float32"', '"int8"')
    (folder / "long.toml").write_text(text, encoding="utf-8")
    return folder


def spec(desk: Path, *profiles: str) -> ExportSpec:
    read = read_spec(desk / "dualtune.yaml")
    return read.model_copy(
        update={"profiles": tuple(str(desk / profile) if "." in profile else profile for profile in profiles)}
    )


@pytest.fixture(scope="module")
def bundle(desk: Path) -> Path:
    run.run(read_spec(desk / "dualtune.yaml"), desk / "bundle")
    return desk / "bundle"


@given(seed=st.integers(0, 2**32 - 1), interleaved=st.booleans(), turned=st.sampled_from([4, 8]))
def test_no_turn_takes_a_key_beyond_its_reach(seed: int, turned: int, *, interleaved: bool) -> None:
    """Wherever it is turned to, as at any other position, a key is within the scales; so is what is not turned."""
    rng, channels = np.random.default_rng(seed), np.arange(turned)
    pairs = np.full(8, -1)
    pairs[:turned] = channels ^ 1 if interleaved else (channels + turned // 2) % turned
    state = rng.standard_normal((1, 2, 2, 5, 8)).astype(np.float32)
    reach = _reach(state, pairs)
    assert reach.shape == (1, 2, 2, 8)
    angle = rng.uniform(0, 2 * np.pi, 8)
    angle = np.where(pairs >= 0, angle[np.minimum(np.arange(8), pairs)], 0)
    sign = np.where(np.arange(8) < pairs, -1, 1)
    other = state[:, 0] * np.cos(angle) + sign * np.where(pairs >= 0, state[:, 0][..., pairs], 0) * np.sin(angle)
    assert (np.abs(other) <= reach[:, 0][:, :, np.newaxis] * (1 + 1e-5)).all()
    np.testing.assert_array_equal(reach[:, 1], np.abs(state[:, 1]).max(axis=-2))


def test_channels_are_paired_as_the_rotation_pairs_them(desk: Path) -> None:
    assert _partners(read_checkpoint(desk / "base")).tolist() == [*range(8, 16), *range(8)]


def test_the_bundles_own_keys_and_values_are_within_the_scales(desk: Path, bundle: Path) -> None:
    inputs = read_inputs(spec(desk, "long.toml"))
    plans = plan_prompts(inputs)
    prompts, read = measured_prompts(inputs, plans), []
    assert {adapter for adapter, _ in prompts} == {None, "selection.files", "arguments.files.read"}
    scales = measure(inputs, prompts, lambda: read.append(1))
    assert len(read) == len(prompts)
    assert KvScales.from_text(scales.to_text(), inputs.checkpoint).sha256 == scales.sha256
    manifest = open_bundle(bundle).manifest
    assert manifest.model("long").cache.scales == scales.sha256
    source = open_bundle(bundle).model  # its cache in float32
    with OrtEngine(source, ONE_THREAD) as engine:
        for adapter, tokens in prompts:
            engine.use(adapter)
            engine.forward(tokens)
            state = np.abs(np.asarray(engine.snapshot().state))
            assert (state.max(axis=3) <= scales.values * 127 * 1.5).all()  # weights are quantized here, there not
    assert measured_prompts(read_inputs(spec(desk, "cpu-x64")), plans) == ()


def test_a_cache_in_int8_is_a_model_of_its_own_with_states_of_a_quarter(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    exact, rounded = manifest.model(PRIMARY), manifest.model("long")
    assert (exact.cache.dtype, rounded.cache.dtype) == ("float32", "int8")
    assert rounded.folder == "variants/long/model"
    for one, other in zip(exact.adapters, rounded.adapters, strict=True):
        assert (one.path == other.path) == (one.mode == "external")  # the slots are the same
    for one, other in zip(exact.states, rounded.states, strict=True):
        assert (other.dtype, other.stored) == ("int8", None)
        assert one.nbytes == 4 * other.nbytes
        assert one.key.identity != other.key.identity


def test_it_answers_with_and_without_its_states_and_by_genai(bundle: Path) -> None:
    opened = open_bundle(bundle).on("long")
    assert opened.parity is not None
    assert all(stage.before_quantization is not None for stage in opened.parity.stages)
    answers = []
    for levers, kind in ((Levers(), "ort"), (Levers(states=False), "ort"), (Levers(), "genai")):
        with Agent(opened, open_engine(opened.model, ONE_THREAD, kind), levers) as agent:
            answers.append(agent.call("read a"))
    assert answers[0].tokens.reused > answers[1].tokens.reused == 0
    for answer in answers[1:]:
        assert (answer.tool, answer.arguments) == (answers[0].tool, answers[0].arguments)
        assert answer.probability == pytest.approx(answers[0].probability, abs=1e-2)


def test_the_export_fails_by_name_where_rounding_is_beyond_the_limits(
    desk: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, asked = open_bundle(bundle).on("long").parity, spec(desk, "long.toml")
    assert report is not None
    assert max(stage.mean_kl for stage in report.stages) < 0.5
    limits = asked.parity.limits.model_copy(update={"max_kl": 0.5})
    asked = asked.model_copy(update={"parity": asked.parity.model_copy(update={"limits": limits})})
    monkeypatch.setattr(graphs, "measure", lambda *of: KvScales(measure(*of).values * np.float32(100)))
    with pytest.raises(ParityError, match="a KL divergence of"):
        run.run(asked, tmp_path / "coarse")


def test_weights_in_float32_beside_it_are_refused(desk: Path) -> None:
    path = desk / "whole.yaml"
    path.write_text(SPEC.replace("[cpu-x64, long.toml]", "long.toml") + "quantization: {bits: 32}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="whose KV cache is in int8"):
        read_inputs(read_spec(path))
