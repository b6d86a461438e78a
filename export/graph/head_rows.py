"""The head of a graph in float32 as the checkpoint has it, in rows: for comparisons, at which it is the largest weight.

The builder stores it transposed, and where embedding and head are one table, transposes it once more for the embedding:
at Qwen2.5-0.5B's shape 0.5 GB each time, to be made, written, and held as the graph opens.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir
from onnx_ir.tensor_adapters import TorchTensor

from dualtune_edge.export.graph.deferred import untransposed
from dualtune_edge.export.graph.streaming import source_of

_HEAD: Final = "/lm_head/MatMul"
_EMBEDDING: Final = "/model/embed_tokens/Gather"


def keep_rows(graph: ir.Graph, *, one_table: bool) -> None:
    """Let the head's product transpose its weight, which no other node does; a head made otherwise is left as it is.

    Args:
        graph: fresh from the builder, its weights deferred.
        one_table: embedding and head have equal weights: then they are stored once.

    """
    nodes = {node.name: node for node in graph}
    head = nodes.get(_HEAD)
    weight = head.inputs[1] if head else None
    source = source_of(weight.const_value) if weight and weight.const_value else None
    rows = None if source is None else untransposed(source)
    if head is None or weight is None or rows is None or head.op_type != "MatMul":
        return
    head.op_type, head.domain = "FusedMatMul", "com.microsoft"  # ONNX's own product cannot transpose
    head.attributes["transB"] = ir.AttrInt64("transB", 1)
    if one_table:
        head.replace_input_with(1, nodes[_EMBEDDING].inputs[0])
        graph.initializers.pop(weight.name)
    else:
        weight.shape = ir.Shape(rows.shape)
        weight.const_value = TorchTensor(rows, name=weight.name)
