"""Qualcomm's own compiler and simulation, where they are installed: package onnxruntime-qnn, Linux on x86-64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.qnn.build import build_static
from dualtune_edge.export.qnn.compile import compile_contexts
from dualtune_edge.profiles import plugins
from dualtune_edge.profiles.schema import QNN_PROVIDER, QnnOptions, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.qnn import by_simulation, find_htp
from dualtune_edge.runtime.engines.static_engine import StaticEngine
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization

pytestmark = pytest.mark.skipif(
    "CPU" not in {device.kind for device in plugins.state(QNN_PROVIDER).devices},
    reason=f"QNN: {plugins.state(QNN_PROVIDER).problem or 'no device that simulates'}",
)

FORM = StaticGraph(chunks=(1, 16), kv_length=64)
TOKENS = tuple(int(token) for token in np.random.default_rng(1).integers(0, 256, 20))
SETTINGS = SessionSettings(1, spinning=False)
X_ELITE = QnnOptions(soc_model=60, htp_arch=73)
X_PLUS = QnnOptions(htp_arch=73)


@pytest.fixture(scope="module")
def static(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static") / "model"
    build_static(
        tiny, folder, FORM, QdqQuantization(weight_bits=4, activation_bits=16, block_size=32), prompts=[TOKENS]
    )
    return folder


@pytest.mark.parametrize("target", [X_ELITE, X_PLUS])
def test_all_of_it_compiles_into_one_context(static: Path, tmp_path: Path, target: QnnOptions) -> None:
    compiled = compile_contexts(static, tmp_path / "htp", FORM, find_htp(target, simulate=True))
    assert {path.name for path in (tmp_path / "htp").iterdir()} == {*FORM.files, compiled.binary.name}


def test_the_simulation_computes_what_the_cpu_computes(static: Path, tiny: Checkpoint) -> None:
    source = ModelSource(
        folder=static,
        fingerprint=tiny.fingerprint,
        cache=tiny.cache.model_copy(update={"dtype": "int16"}),
        vocab_size=tiny.vocab_size,
        context_length=tiny.context_length,
        graph=FORM,
    )
    simulated = StaticEngine(source, SETTINGS, by_simulation(find_htp(X_ELITE, simulate=True), SETTINGS))
    with simulated, StaticEngine(source, SETTINGS) as exact:
        for piece in (TOKENS[:18], TOKENS[18:19], TOKENS[19:]):
            expected = exact.forward(piece)
            assert np.abs(simulated.forward(piece) - expected).max() < 0.05 * expected.std()
        assert simulated.placement.on_cpu == {"DequantizeLinear": 1}
