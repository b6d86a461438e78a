"""A model's static graphs: one a chunk length, all on one weights file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir import external_data

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.weights import Weights
from dualtune_edge.export.graph.checks import check_onnx
from dualtune_edge.export.qnn.calibration import calibrate, input_moments
from dualtune_edge.export.qnn.decoder import UNIT, Chunk, decoder
from dualtune_edge.export.qnn.parameters import ModelParameters
from dualtune_edge.export.qnn.range import Range
from dualtune_edge.export.qnn.shape import decoder_shape
from dualtune_edge.export.qnn.tables import lookup_tables
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization

WEIGHTS: Final = "weights.data"
_INLINE: Final = 1024  # bytes: smaller constants stay in the graphs


def build_static(
    checkpoint: Checkpoint,
    out: Path,
    form: StaticGraph,
    quantization: QdqQuantization | None,
    *,
    prompts: Sequence[Sequence[int]] = (),
    weights: Weights | None = None,
) -> None:
    """Write `form.files` and the weights that they share into a new folder.

    Args:
        checkpoint: the base.
        out: the folder.
        form: chunk lengths and the length of the KV cache.
        quantization: of weights and activations; None: all in float32.
        prompts: token sequences for calibration: they give the rounding of 4-bit weights and the activations' ranges.
        weights: those with an adapter merged in; None: the base's.

    Raises:
        CheckpointError: the base has no static graph.

    """
    shape = decoder_shape(checkpoint)
    names = frozenset(checkpoint.stored)
    stored = weights or checkpoint.weights
    parameters = ModelParameters(stored, names, shape, None)
    out.mkdir(parents=True)
    ranges = None
    if quantization:
        chunk = Chunk(form.chunks[-1], form.kv_length)
        with tempfile.TemporaryDirectory(dir=out, prefix=".calibration.") as scratch:
            four = quantization.weight_bits == 4
            inputs = input_moments(shape, chunk, parameters, prompts, Path(scratch)) if four else {}
            parameters = ModelParameters(stored, names, shape, quantization, inputs)
            ranges = calibrate(shape, chunk, parameters, prompts, Path(scratch))
    for name, values in lookup_tables(shape, form.kv_length, parameters.table()).items():
        grid = UNIT if name in {"cos", "sin"} else Range.around(values)
        np.save(out / f"{name}.npy", grid.quantize(values) if quantization else values, allow_pickle=False)
    shared: dict[str, ir.TensorProtocol] = {}
    for tokens, file in zip(form.chunks, form.files, strict=True):
        model = decoder(shape, Chunk(tokens, form.kv_length), parameters, ranges).model(file.removesuffix(".onnx"))
        initializers = model.graph.initializers.values()
        large = [value for value in initializers if value.const_value and value.const_value.nbytes > _INLINE]
        if not shared:
            tensors = [value.const_value for value in large if value.const_value]
            external = external_data.convert_tensors_to_external(tensors, out, WEIGHTS)
            shared = {str(tensor.name): tensor for tensor in external}
        for value in large:
            value.const_value = shared[str(value.name)]
        ir.save(model, out / file)
        check_onnx(out / file)
