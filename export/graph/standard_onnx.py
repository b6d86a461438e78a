"""The builder's graph by the rules of ONNX, so that ONNX's own checker accepts it.

The builder writes RMS norms as `SimplifiedLayerNormalization`, an operator of onnxruntime's, into ONNX's domain.
onnxruntime runs the same kernel for ONNX's `RMSNormalization`. Of some constants the builder notes another shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx_ir as ir

from dualtune_edge.export.graph.model_files import MODEL, replace_model

_BUILDERS_NORM: Final = "SimplifiedLayerNormalization"
_NORM: Final = "RMSNormalization"
_OPSET: Final = 23  # the first with RMSNormalization


def standardize(folder: Path) -> None:
    """Rewrite model.onnx; leaves model.onnx.data."""
    model = ir.load(folder / MODEL)
    for node in model.graph:
        if node.op_type == _BUILDERS_NORM and not node.domain:
            node.op_type = _NORM
        elif node.op_type == "Constant":
            node.outputs[0].shape = node.attributes["value"].as_tensor().shape
    model.graph.opset_imports[""] = max(_OPSET, model.graph.opset_imports[""])
    replace_model(model, folder)
