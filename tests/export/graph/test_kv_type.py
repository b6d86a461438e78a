from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from dualtune_edge.export.graph.kv_type import check_kv_in_int8, store_kv_in_int8
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.toolkit.errors import EngineError, GraphError

SETTINGS = SessionSettings(intra_op_threads=1)
TOKENS = tuple(int(token) for token in np.random.default_rng(0).integers(0, 288, 60))


@pytest.fixture(scope="module")
def exact(float_graph: Any) -> ModelSource:
    checkpoint = float_graph.checkpoint
    return ModelSource(
        float_graph.folder, checkpoint.fingerprint, checkpoint.cache, checkpoint.vocab_size, checkpoint.context_length
    )


@pytest.fixture(scope="module")
def state(exact: ModelSource) -> NDArray[np.float32]:
    with OrtEngine(exact, SETTINGS) as engine:
        engine.forward(TOKENS)
        return np.asarray(engine.snapshot().state, dtype=np.float32)


Rounded = Callable[[NDArray[np.float32]], ModelSource]


@pytest.fixture
def rounded(exact: ModelSource, tmp_path: Path) -> Rounded:
    """The same model with its cache on these scales."""

    def make(scales: NDArray[np.float32]) -> ModelSource:
        folder = shutil.copytree(exact.folder, tmp_path / str(len(list(tmp_path.iterdir()))))
        store_kv_in_int8(folder, scales)
        name = f"{int(scales.sum() * 1e6):064d}"
        cache = exact.cache.model_copy(update={"dtype": "int8", "scales": name})
        return ModelSource(folder, exact.fingerprint, cache, exact.vocab_size, exact.context_length)

    return make


def test_what_is_stored_are_the_nearest_steps(rounded: Rounded, state: NDArray[np.float32]) -> None:
    scales = np.abs(state).max(axis=3) / np.float32(127)
    with OrtEngine(rounded(scales), SETTINGS) as engine:
        engine.forward(TOKENS)
        stored = np.asarray(engine.snapshot().state)
    assert stored.dtype == np.int8
    first = stored[0] - np.rint(state[0] / scales[0][:, :, np.newaxis])  # the layers above read what is rounded
    assert (np.abs(first) <= 1).all()
    assert (first == 0).mean() > 0.99


def test_finer_steps_are_nearer(exact: ModelSource, rounded: Rounded, state: NDArray[np.float32]) -> None:
    scales, errors = np.abs(state).max(axis=3) / np.float32(127), []
    with OrtEngine(exact, SETTINGS) as engine:
        expected = engine.forward(TOKENS)
    for factor in (1, 8):
        with OrtEngine(rounded(scales * np.float32(factor)), SETTINGS) as engine:
            errors.append(np.abs(engine.forward(TOKENS) - expected).max())
    assert 0 < errors[0] < errors[1] / 3


def test_a_state_on_other_scales_is_of_another_model(rounded: Rounded, state: NDArray[np.float32]) -> None:
    scales = np.abs(state).max(axis=3) / np.float32(127)
    with open_engine(rounded(scales), SETTINGS) as one, open_engine(rounded(scales * 2), SETTINGS) as other:
        one.forward(TOKENS)
        with pytest.raises(EngineError, match="KV state of"):
            other.restore(one.snapshot())


def test_a_float_engine_does_not_open_it_nor_the_other_way_round(
    exact: ModelSource, rounded: Rounded, state: NDArray[np.float32]
) -> None:
    made = rounded(np.abs(state).max(axis=3))
    for folder, cache in ((made.folder, exact.cache), (exact.folder, made.cache)):
        source = ModelSource(folder, exact.fingerprint, cache, exact.vocab_size, exact.context_length)
        with pytest.raises(EngineError, match=r"past_key_values.*tensor"), open_engine(source, SETTINGS) as engine:
            engine.forward(TOKENS)


def test_what_it_does_not_know_is_refused(exact: ModelSource, rounded: Rounded, state: NDArray[np.float32]) -> None:
    scales = np.abs(state).max(axis=3)
    made = rounded(scales)
    with pytest.raises(GraphError, match=r"found .*INT8"):
        store_kv_in_int8(made.folder, scales)
    with pytest.raises(GraphError, match="other scales"):
        check_kv_in_int8(made.folder, scales * 2)
    with pytest.raises(GraphError, match="one a layer"):
        store_kv_in_int8(exact.folder, scales[:1])
    model = ir.load(made.folder / "model.onnx")
    next(value for value in model.graph.outputs if value.name == "present.1.value").dtype = ir.DataType.FLOAT
    ir.save(model, made.folder / "model.onnx")
    with pytest.raises(GraphError, match=r"present\.1\.value"):
        check_kv_in_int8(made.folder, scales)
