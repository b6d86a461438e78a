"""OpenVINO's own provider on its CPU device, where it is installed and offers one (on Intel's CPUs)."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dualtune_edge.profiles import plugins
from dualtune_edge.profiles.plugins import OPENVINO
from dualtune_edge.profiles.schema import OpenVinoOptions, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.cache.folder import CACHE_VARIABLE
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.runtime.result import Placement

pytestmark = pytest.mark.skipif(
    "CPU" not in {device.kind for device in plugins.state(OPENVINO).devices},
    reason=f"OpenVINO: {plugins.state(OPENVINO).problem or 'no CPU device'}",
)

CPU = SessionSettings(intra_op_threads=1, spinning=False)
SETTINGS = replace(CPU, provider=OPENVINO, openvino=OpenVinoOptions(precision="f32"))
TOKENS = tuple(int(token) for token in np.random.default_rng(3).integers(0, 288, 60))
PIECES = (TOKENS[:40], TOKENS[40:41], TOKENS[41:42], TOKENS[42:])


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def engine(fp32: ModelSource) -> Iterator[OrtEngine]:
    with OrtEngine(fp32, SETTINGS) as opened:
        yield opened


def logits(engine: OrtEngine, adapter: str | None) -> list[NDArray[np.float32]]:
    """After a prefill, two single tokens, and a piece."""
    engine.use(adapter)
    return [engine.forward(piece) for piece in PIECES]


@pytest.mark.parametrize("adapter", [None, "wide", "narrow", "merged"])
def test_it_computes_what_the_cpu_provider_computes(engine: OrtEngine, fp32: ModelSource, adapter: str | None) -> None:
    with OrtEngine(fp32, CPU) as reference:
        expected = logits(reference, adapter)
    np.testing.assert_allclose(logits(engine, adapter), expected, atol=1e-4, rtol=0)


def test_activations_are_quantized_only_where_the_bundle_says_so(int4: ModelSource, tmp_path: Path) -> None:
    import onnx

    folder = shutil.copytree(int4.folder, tmp_path / "model")
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    levels = [value for node in graph.graph.node for value in node.attribute if value.name == "accuracy_level"]
    assert {value.i for value in levels} == {4}
    for value in levels:
        value.i = 1  # fp32
    onnx.save(graph, folder / "model.onnx")
    source = replace(int4, folder=folder, adapters=(int4.adapter("wide"),), int8_activations=False)
    coarse = replace(source, int8_activations=True)
    with OrtEngine(source, CPU) as one, OrtEngine(source, SETTINGS) as two, OrtEngine(coarse, SETTINGS) as three:
        expected, fine, coarser = (logits(source, "wide") for source in (one, two, three))
    np.testing.assert_allclose(fine, expected, atol=1e-4, rtol=0)
    assert not np.allclose(coarser, expected, atol=1e-3, rtol=0)


def test_what_it_leaves_to_the_cpu_is_listed(engine: OrtEngine, fp32: ModelSource) -> None:
    engine.use(None)
    layers = fp32.cache.layers
    assert engine.placement == Placement(provider=OPENVINO, on_cpu={"GroupQueryAttention": layers})


def test_swapping_there_and_back_changes_no_bit(engine: OrtEngine) -> None:
    before = logits(engine, "wide")
    other = logits(engine, "narrow")
    assert all((one != two).any() for one, two in zip(before, other, strict=True))
    assert all((one == two).all() for one, two in zip(before, logits(engine, "wide"), strict=True))


def test_a_snapshot_restores(engine: OrtEngine) -> None:
    engine.use("wide")
    engine.forward(TOKENS[:40])
    snapshot = engine.snapshot()
    expected = engine.forward(TOKENS[40:])
    engine.use("narrow")
    engine.use("wide")
    engine.restore(snapshot)
    np.testing.assert_array_equal(engine.forward(TOKENS[40:]), expected)


def test_several_rows_come_from_one_forward(engine: OrtEngine, fp32: ModelSource) -> None:
    with OrtEngine(fp32, CPU) as reference:
        reference.use("wide")
        expected = reference.forward_rows(TOKENS, [3, 10, 59])
    engine.use("wide")
    np.testing.assert_allclose(engine.forward_rows(TOKENS, [3, 10, 59]), expected, atol=1e-4, rtol=0)


def test_what_was_compiled_is_used_again_and_damage_is_not(cache: Path, int4: ModelSource) -> None:
    before = set(cache.iterdir())
    with OrtEngine(int4, SETTINGS) as engine:
        expected = logits(engine, "narrow")
    (entry,) = set(cache.iterdir()) - before
    blobs = {path: path.stat().st_mtime_ns for path in entry.iterdir()}
    assert len(blobs) > 1
    with OrtEngine(int4, SETTINGS) as engine:
        np.testing.assert_array_equal(logits(engine, "narrow"), expected)
    assert {path: path.stat().st_mtime_ns for path in entry.iterdir()} == blobs
    damaged = max(blobs, key=lambda path: path.stat().st_size)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with OrtEngine(int4, SETTINGS) as engine:
        np.testing.assert_array_equal(logits(engine, "narrow"), expected)
    assert damaged.read_bytes() != data
