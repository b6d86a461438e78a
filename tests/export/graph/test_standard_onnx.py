"""Every finished graph is one for ONNX's own checker, and computes what it did with onnxruntime's operator."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.graph import build as building
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.checks import check_onnx
from dualtune_edge.export.graph.kv_type import store_kv_in_int8
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import GraphError

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)


def logits(folder: Path, checkpoint: Checkpoint) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    ids = np.array([TOKENS], dtype=np.int64)
    empty = np.zeros((1, checkpoint.cache.heads, 0, checkpoint.cache.head_dim), dtype=np.float32)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feed |= {value.name: empty for value in session.get_inputs() if value.name.startswith("past")}
    found: np.ndarray = session.run(["logits"], feed)[0]
    return found


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_logits_stay_to_the_bit(bits: Any, tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_graph(tiny, tmp_path / "ours", Quantization(bits=bits))
    monkeypatch.setattr(building, "_standardize", lambda _: None)
    build_graph(tiny, tmp_path / "builders", Quantization(bits=bits))
    with pytest.raises(onnx.checker.ValidationError, match="SimplifiedLayerNormalization"):
        onnx.checker.check_model(str(tmp_path / "builders" / "model.onnx"))
    onnx.checker.check_model(str(tmp_path / "ours" / "model.onnx"), full_check=True)
    np.testing.assert_array_equal(logits(tmp_path / "ours", tiny), logits(tmp_path / "builders", tiny))


def test_slots_of_every_kind_and_a_cache_in_int8_pass_too(tiny: Checkpoint, tmp_path: Path) -> None:
    build_graph(tiny, tmp_path, Quantization())
    add_slots(tmp_path, extras=frozenset({"head", "embedding", "bias"}))
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    cache = tiny.cache
    store_kv_in_int8(tmp_path, np.full((cache.layers, 2, cache.heads, cache.head_dim), 0.02, dtype=np.float32))
    onnx.checker.check_model(str(tmp_path / "model.onnx"))


def _unknown_operator(graph: ir.Graph) -> None:
    next(iter(graph)).op_type = "NoSuchOperator"


def _weights_elsewhere(graph: ir.Graph) -> None:
    value = next(value for value in graph.initializers.values() if isinstance(value.const_value, ir.ExternalTensor))
    old: Any = value.const_value
    value.const_value = ir.ExternalTensor(
        "gone.data", old.offset, old.length, old.dtype, shape=old.shape, name=old.name
    )


@pytest.mark.parametrize("spoil", [_unknown_operator, _weights_elsewhere])
def test_another_graph_is_refused(spoil: Any, int4_graph: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(int4_graph.folder, tmp_path / "copy"))
    check_onnx(copy / "model.onnx")
    model = ir.load(copy / "model.onnx")
    spoil(model.graph)
    ir.save(model, copy / "model.onnx")
    with pytest.raises(GraphError, match=r"model\.onnx: found .*ONNX's checker"):
        check_onnx(copy / "model.onnx")
