"""A graph in float32 for comparisons has its head in rows: the same logits, and no table twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.weights import UntiedWeights
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.toolkit.bundle.quantization import Quantization

MakeAdapter: TypeAlias = Callable[..., Path]
PeftLogits: TypeAlias = Callable[[Path, Path | None], NDArray[np.float32]]


@pytest.mark.parametrize(("like", "tables"), [("float_graph", 1), ("untied_graph", 2)])
def test_the_head_in_rows(
    request: pytest.FixtureRequest,
    make_adapter: MakeAdapter,
    peft_logits: PeftLogits,
    tmp_path: Path,
    *,
    like: str,
    tables: int,
) -> None:
    plain = request.getfixturevalue(like)
    checkpoint = plain.checkpoint
    weights = UntiedWeights(checkpoint.weights)
    build_graph(checkpoint, tmp_path / "model", Quantization(bits=32), weights=weights)
    slots = add_slots(tmp_path / "model", extras=frozenset({"head"}))
    graph: Any = type(plain)(checkpoint, tmp_path / "model", slots)
    np.testing.assert_allclose(graph.logits(), plain.logits(), atol=1e-5)

    held = ir.load(tmp_path / "model" / "model.onnx").graph.initializers.values()
    sizes = [value.const_value.size for value in held if value.const_value]
    assert sizes.count(checkpoint.vocab_size * 64) == tables
    stored, before = ((folder / "model.onnx.data").stat().st_size for folder in (graph.folder, plain.folder))
    assert stored == before

    adapter = make_adapter(checkpoint, r=2, target_modules=["lm_head", "down_proj"])
    write_adapter(read_adapter(adapter, checkpoint, "external"), slots, tmp_path / "file")
    expected = peft_logits(checkpoint.folder, adapter)
    assert np.abs(expected - plain.logits()).max() > 1e-2
    np.testing.assert_allclose(graph.logits(tmp_path / "file"), expected, atol=1e-4)
