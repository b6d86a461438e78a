"""Any position's logits from one forward, and nothing else changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from dualtune_edge.export.graph.logits import add_logits_rows
from dualtune_edge.toolkit.errors import GraphError

TOKENS = tuple(range(40, 60))


def rows(graph: Any, at: list[int] | None) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.folder / "model.onnx", options)
    ids = np.array([TOKENS], dtype=np.int64)
    empty = np.zeros((1, graph.checkpoint.cache.heads, 0, graph.checkpoint.cache.head_dim), dtype=np.float32)
    feed = {value.name: empty for value in session.get_inputs()} | {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
    }
    if at is not None:
        feed["logits_at"] = np.array(at, dtype=np.int64)
    names = ["logits", "logits_rows"]
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize("name", ["float_graph", "int4_graph"])
def test_a_row_is_what_a_prompt_that_ends_there_gives(name: str, request: pytest.FixtureRequest) -> None:
    graph = request.getfixturevalue(name)
    found = rows(graph, [3, 11, 19])["logits_rows"]
    assert found.shape == (1, 3, graph.checkpoint.vocab_size)
    for row, position in zip(found[0], (3, 11, 19), strict=True):
        np.testing.assert_allclose(row, graph.logits(tokens=TOKENS[: position + 1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("at", [None, [-1], [0, 5, 19], [19]])
def test_logits_are_those_of_the_last_row(at: list[int] | None, int4_graph: Any) -> None:
    found = rows(int4_graph, at)
    assert found["logits"].shape == (1, 1, int4_graph.checkpoint.vocab_size)
    np.testing.assert_array_equal(found["logits"][0, 0], found["logits_rows"][0, -1])


def test_a_graph_that_has_rows_already_is_refused_and_stays(int4_graph: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(int4_graph.folder, tmp_path / "copy"))
    before = (copy / "model.onnx").read_bytes()
    with pytest.raises(GraphError, match="Unsqueeze"):
        add_logits_rows(copy)
    assert (copy / "model.onnx").read_bytes() == before
    assert not list(copy.glob("*.partial"))


def test_a_head_that_is_fed_otherwise_is_refused(int4_graph: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(int4_graph.folder, tmp_path / "copy"))
    model = ir.load(copy / "model.onnx")
    for node in model.graph:
        node.name = (node.name or "").replace("prune", "other")
    ir.save(model, copy / "model.onnx")
    with pytest.raises(GraphError, match=r"/lm_head/prune/Gather"):
        add_logits_rows(copy)
