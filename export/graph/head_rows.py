"""The head of a float32 graph stored in rows, as in the checkpoint. In a comparison's graph it is the largest weight.

The builder stores it transposed, and transposes it again for the embedding where both are one table. At Qwen2.5-0.5B's
shape either copy is 0.5 GB to compute, to write, and to hold in memory.
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
    """Make the head's product transpose its weight, in place of the weight itself. Any other head is left as it is.

    Args:
        graph: fresh from the builder, with deferred weights.
        one_table: embedding and head have equal weights, and are stored once.

    """
    nodes = {node.name: node for node in graph}
    head = nodes.get(_HEAD)
    weight = head.inputs[1] if head else None
    source = source_of(weight.const_value) if weight and weight.const_value else None
    rows = None if source is None else untransposed(source)
    if head is None or weight is None or rows is None or head.op_type != "MatMul":
        return
    head.op_type, head.domain = "FusedMatMul", "com.microsoft"  # ONNX's MatMul cannot transpose
    head.attributes["transB"] = ir.AttrInt64("transB", 1)
    if one_table:
        head.replace_input_with(1, nodes[_EMBEDDING].inputs[0])
        graph.initializers.pop(weight.name)
    else:
        weight.shape = ir.Shape(rows.shape)
        weight.const_value = TorchTensor(rows, name=weight.name)
