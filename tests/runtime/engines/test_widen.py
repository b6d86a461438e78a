from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from dualtune_edge.runtime.engines.widen import CAST, widen


def test_the_graph_is_a_cast_and_nothing_else() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Cast", ["narrow"], ["wide"], to=TensorProto.FLOAT)],
        "widen",
        [value("narrow", TensorProto.FLOAT16, ["tokens", "values"])],
        [value("wide", TensorProto.FLOAT, ["tokens", "values"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert model.SerializeToString() == CAST


def test_every_float16_is_exact_and_nothing_beside_is_written() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(2, 2, 128, 128)
    cache = np.full((2, 2, 200, 128), 7, dtype=np.float32)
    widen(every, cache[:, :, 30:158])
    np.testing.assert_array_equal(cache[:, :, 30:158], every.astype(np.float32))
    assert (cache[:, :, :30] == 7).all()
    assert (cache[:, :, 158:] == 7).all()


def test_the_values_of_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "x.kv"
    values = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("<f2")
    values.tofile(path)
    wide = np.empty((2, 3, 4), dtype=np.float32)
    widen(np.memmap(path, dtype="<f2", mode="r", shape=(2, 3, 4)), wide)
    np.testing.assert_array_equal(wide, values.astype(np.float32))
