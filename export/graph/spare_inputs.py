"""LoRA inputs that nothing reads: a graph of some of the layers takes the adapters of all of them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from dualtune_edge.export.graph.checks import MODEL


def add_spare_inputs(folder: Path, like: Path) -> None:
    """Rewrite model.onnx in `folder` so that it has all the slots' inputs that the one in `like` has."""
    model = ir.load(folder / MODEL)
    own = {value.name for value in model.graph.inputs}
    for value in ir.load(like / MODEL).graph.inputs:
        if (value.name or "").startswith("lora.") and value.name not in own:
            model.graph.inputs.append(ir.Value(name=value.name, shape=value.shape, type=value.type))
    stage = folder / f"{MODEL}.partial"
    ir.save(model, stage)  # external tensors stay references to model.onnx.data
    stage.replace(folder / MODEL)
