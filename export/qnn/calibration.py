"""Calibration: the float graph is run over prompts, chunk by chunk, and its activations give ranges and moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.export.qnn.decoder import Chunk, decoder
from dualtune_edge.export.qnn.parameters import ModelParameters
from dualtune_edge.export.qnn.range import Range
from dualtune_edge.export.qnn.shape import DecoderShape
from dualtune_edge.export.qnn.tables import lookup_tables
from dualtune_edge.export.quantize.gptq import Moments, moments
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.runtime.engines.static_graph import mask_of

_ROOM: Final = 4.0  # a range is so many times the observed one: two bits of sixteen. With 1.5 values were clipped


def calibrate(
    shape: DecoderShape, chunk: Chunk, parameters: ModelParameters, prompts: Sequence[Sequence[int]], scratch: Path
) -> dict[str, Range]:
    """The ranges of the activations by name: those over the prompts, widened.

    Args:
        shape: the decoder's.
        chunk: tokens of a forward. A shorter prompt is filled up with its own tokens.
        parameters: the model's weights.
        prompts: one or more, each of one token or more. Beyond `kv_length` they are cut.
        scratch: an existing folder for the graph.

    """
    run = _Run(shape, chunk, parameters, scratch)
    names = {str(value.name): name for name, value in run.emit.observed.items()}
    ranges: dict[str, Range] = {}
    for output, values in run.forwards(prompts, run.emit.observed):
        low, high = float(values.min()), float(values.max())
        before = ranges.get(names[output], Range(low, high))
        ranges[names[output]] = Range(min(low, before.low), max(high, before.high))
    return {name: Range(observed.low * _ROOM, observed.high * _ROOM) for name, observed in ranges.items()}


def input_moments(
    shape: DecoderShape, chunk: Chunk, parameters: ModelParameters, prompts: Sequence[Sequence[int]], scratch: Path
) -> dict[str, Moments]:
    """The second moments of the linear modules' inputs over the prompts, by module; arguments as of `calibrate`."""
    run = _Run(shape, chunk, parameters, scratch)
    sums: dict[str, Moments] = {}  # by the value: several modules may read one
    for output, values in run.forwards(prompts, run.emit.read):
        added = moments(values.reshape(-1, values.shape[-1]))
        before = sums.get(output)
        sums[output] = tuple(map(np.add, before, added)) if before else added
    return {module: sums[str(value.name)] for module, value in run.emit.read.items()}


class _Run:
    """The float graph, chunk by chunk over prompts."""

    def __init__(self, shape: DecoderShape, chunk: Chunk, parameters: ModelParameters, scratch: Path) -> None:
        self._shape, self._chunk, self._scratch = shape, chunk, scratch
        self._tables = lookup_tables(shape, chunk.kv_length, parameters.table())
        self.emit = decoder(shape, chunk, parameters)

    def forwards(
        self, prompts: Sequence[Sequence[int]], wanted: Mapping[str, ir.Value]
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(name in the graph, values) of every wanted value in every chunk."""
        model = self.emit.model("calibration")
        graph_outputs = model.graph.outputs
        graph_outputs.extend(value for value in dict.fromkeys(wanted.values()) if value not in graph_outputs)
        path = self._scratch / "calibration.onnx"
        ir.save(model, path, external_data=f"{path.name}.data")
        session = onnxruntime.InferenceSession(path, _options(), providers=["CPUExecutionProvider"])
        names = {str(value.name) for value in wanted.values()}
        for prompt in prompts:
            for outputs in _forwards(session, self._tables, self._shape, self._chunk, prompt):
                yield from ((output, values) for output, values in outputs.items() if output in names)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # fp32 activations, as calibrated
    options.log_severity_level = 3
    return options


def _forwards(
    session: onnxruntime.InferenceSession,
    tables: Mapping[str, NDArray[np.float32]],
    shape: DecoderShape,
    chunk: Chunk,
    prompt: Sequence[int],
) -> Iterator[Mapping[str, NDArray[np.float32]]]:
    """All outputs of every chunk, by name."""
    outputs = [value.name for value in session.get_outputs()]
    halves = [f"{layer}.{half}" for layer in range(shape.layers) for half in ("key", "value")]
    past = {half: np.zeros((1, chunk.kv_length, shape.kv_heads, shape.head_dim), dtype=np.float32) for half in halves}
    for start in _starts(min(len(prompt), chunk.kv_length), chunk.tokens):
        ids = np.resize(np.asarray(prompt[start : start + chunk.tokens], dtype=np.int64), (1, chunk.tokens))
        feed = {
            "hidden": tables["hidden"][ids],
            **{name: tables[name][np.newaxis, start : start + chunk.tokens, np.newaxis] for name in ("cos", "sin")},
            "mask": mask_of(start, chunk.tokens, chunk.kv_length, np.dtype(np.float32)),
            "logits_at": np.array([chunk.tokens - 1]),
            **{f"past.{half}": values[:, : chunk.past] for half, values in past.items()},
        }
        values_of = dict(zip(outputs, session.run(outputs, feed), strict=True))
        for half, values in past.items():
            values[:, start : start + chunk.tokens] = values_of[f"present.{half}"]
        yield values_of


def _starts(length: int, tokens: int) -> list[int]:
    """Where a prompt's chunks start. The last one ends with the prompt, and may repeat tokens of the one before."""
    return [*range(0, length - tokens, tokens), max(0, length - tokens)]
