"""Logits of several positions from one forward: an input with a default says which rows reach the head.

The builder's graph computes the logits of the last position only, which is all that a prefill needs. To verify a draft
of several tokens in one forward, each of its positions needs logits. The pass keeps `logits` and adds:

- input `logits_at`, int64 [rows]: positions of `input_ids`, counted from the end where negative. Default: [-1].
- output `logits_rows`, float [batch, rows, vocabulary]: the logits of those positions. The last row is `logits`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from dualtune_edge.export.graph.model_files import MODEL, replace_model
from dualtune_edge.toolkit.errors import GraphError

AT: Final = "logits_at"
ROWS: Final = "logits_rows"
_GATHER: Final = "/lm_head/prune/Gather"
_UNSQUEEZE: Final = "/lm_head/prune/Unsqueeze"


def add_logits_rows(folder: Path) -> None:
    """Add `logits_at` and `logits_rows` to model.onnx.

    Raises:
        GraphError: the head does not read what the builder's nodes for the last position make.

    """
    path = folder / MODEL
    model = ir.load(path)
    graph = model.graph
    gather, unsqueeze = (_node(graph, name, path) for name in (_GATHER, _UNSQUEEZE))
    if gather.outputs[0].is_graph_output() or [use.node for use in gather.outputs[0].uses()] != [unsqueeze]:
        raise _unknown(path, f"{_GATHER} read by other nodes")
    gather.replace_input_with(1, _positions(graph))
    kept = gather.outputs[0]
    hidden = unsqueeze.outputs[0]
    kept.shape = ir.Shape([*_head(hidden, path), "rows", hidden.shape[-1] if hidden.shape else None])
    for user, index in list(hidden.uses()):
        user.replace_input_with(index, kept)
    graph.remove(unsqueeze, safe=True)
    _widen(kept)
    _split(graph, path)
    replace_model(model, folder)


def _node(graph: ir.Graph, name: str, path: Path) -> ir.Node:
    node = next((node for node in graph if node.name == name), None)
    if node is None:
        raise _unknown(path, f"no node {name}")
    return node


def _head(hidden: ir.Value, path: Path) -> list[int | ir.SymbolicDim]:
    """The batch dimension of a value of shape [batch, 1, hidden]."""
    if hidden.shape is None or len(hidden.shape) != 3:
        raise _unknown(path, f"{_UNSQUEEZE} of shape {hidden.shape}")
    return [hidden.shape[0]]


def _positions(graph: ir.Graph) -> ir.Value:
    """An input that may be left out: its default is the last position."""
    value = ir.Value(
        name=AT,
        shape=ir.Shape(["rows"]),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(np.array([-1], dtype=np.int64), name=AT),
    )
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value


def _widen(kept: ir.Value) -> None:
    """Give the values that the head makes of the rows a symbolic number of rows."""
    users = {use.node for use in kept.uses()}
    while users:
        for value in users.pop().outputs:
            if value.shape is not None and len(value.shape) == 3:
                value.shape = ir.Shape([value.shape[0], "rows", value.shape[2]])
            users |= {use.node for use in value.uses()}


def _split(graph: ir.Graph, path: Path) -> None:
    """Rename `logits` to `logits_rows`, and make its last row `logits`."""
    index = next((at for at, value in enumerate(graph.outputs) if value.name == "logits"), None)
    node = None if index is None else graph.outputs[index].producer()
    if index is None or node is None:
        raise _unknown(path, "no node that makes `logits`")
    rows = graph.outputs[index]
    rows.name = ROWS
    last = ir.Value(name=f"{ROWS}.last", const_value=ir.tensor(np.array([-1], dtype=np.int64), name=f"{ROWS}.last"))
    graph.register_initializer(last)
    gather = ir.node("Gather", [rows, last], {"axis": 1}, name="/lm_head/last/Gather")
    logits = gather.outputs[0]
    logits.name, logits.type = "logits", rows.type
    logits.shape = ir.Shape([rows.shape[0], 1, rows.shape[2]]) if rows.shape else None
    graph.insert_after(node, gather)
    graph.outputs[index] = logits
    graph.outputs.append(rows)


def _unknown(path: Path, found: str) -> GraphError:
    return GraphError(
        str(path),
        found=found,
        expected="the last position's hidden state, gathered before the head",
        fix="Report this with the versions of the packages: the builder writes another graph than it did.",
    )
