"""The builder's graph written weight by weight: read, quantize, write, drop.

The builder quantizes a whole graph in memory. Here its `to_nbits` is called on a graph of one MatMul, for some columns
at a time. A block of weights lies within a column, so the result is the same, bit for bit. `k_quant` corrects blocks
that its k-quant gets wrong.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch

from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.weights import Weights
from dualtune_edge.export.graph.deferred import columns, names, rows
from dualtune_edge.export.graph.model_files import DATA, MODEL, DataFile
from dualtune_edge.export.quantize import k_quant
from dualtune_edge.export.quantize.gptq import Moments, filled_up, round_by
from dualtune_edge.export.quantize.input_moments import InputMoments

_SUFFIX: Final = re.compile(r"_Q\d$")  # of a node that was quantized
_PIECE: Final = 1 << 22  # weights in memory at a time; k_quant takes about 100 bytes a weight


@dataclass(frozen=True)
class _Quantized:
    """The node in a MatMul's place. `tensors` are its inputs after the activations, in the order of storage."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]  # names of the tensors, in the node's order
    attributes: tuple[ir.Attr, ...]
    tensors: tuple[ir.TensorProtocol, ...]


@dataclass(frozen=True)
class WeightSource:
    """Where a graph's weights come from.

    `base`: a folder with the base's graph in the same quantization; unchanged weights are copied from there. `moments`:
    the file of the inputs' second moments, by which GPTQ rounds the others.
    """

    weights: Weights
    base: Path | None = None
    moments: Path | None = None


class GraphWriter:
    """Writes the graph that a builder has made.

    Args:
        builder: onnxruntime-genai's, with a graph of deferred weights.
        source: where the graph's weights come from.

    """

    def __init__(self, builder: Any, source: WeightSource) -> None:
        self._builder, self._weights = builder, source.weights
        self._moments = InputMoments(source.moments) if source.moments else None
        graph = ir.load(source.base / MODEL).graph if source.base else None
        self._initializers = dict(graph.initializers) if graph else {}
        quantized = (node for node in graph or () if node.op_type == "MatMulNBits")
        self._nodes = {_SUFFIX.sub("", node.name or ""): node for node in quantized}

    def write(self, folder: Path) -> None:
        """Write model.onnx and model.onnx.data in the builder's layout."""
        model: ir.Model = self._builder.model
        matmuls = list(self._matmuls(model.graph))
        weights = {node.inputs[1].name for node in matmuls}
        with DataFile(folder / DATA) as data:
            for name, value in list(model.graph.initializers.items()):
                if name not in weights:
                    value.const_value = self._copy(value, data)
            for node in matmuls:
                self._lower(node, data)
        model.graph.sort()
        model.producer_version = metadata.version("onnxruntime-genai")  # the builder adds a git repository's commit
        ir.save(model, folder / MODEL)

    def _matmuls(self, graph: ir.Graph) -> Iterator[ir.Node]:
        """The nodes whose weights are quantized."""
        if self._builder.onnx_dtype == ir.DataType.FLOAT:
            return
        for node in graph:
            if node.op_type == "MatMul" and node.inputs[1].name in graph.initializers:
                yield node

    def _copy(self, value: ir.Value, data: DataFile) -> ir.ExternalTensor:
        """Write a tensor that is not quantized."""
        tensor = value.const_value
        source = source_of(tensor)
        if source is None:
            return data.append(tensor)
        kept = self._initializers.get(value.name)
        if kept and not self._changed(source) and (kept.dtype, kept.shape) == (value.dtype, value.shape):
            return data.append(kept.const_value)
        step = max(1, _PIECE // max(1, source[:1].numel()))
        return data.append_rows(value, (piece.contiguous().numpy() for piece in rows(source, step)))

    def _lower(self, node: ir.Node, data: DataFile) -> None:
        """Quantize and write a MatMul's weight, and make the node one that reads it."""
        weight = node.inputs[1]
        graph = node.graph
        source = source_of(weight.const_value)
        kept = self._nodes.get(node.name)
        quantized = _kept(kept) if kept and not self._changed(source) else self._quantize(node, source)
        stored = {}
        for tensor in quantized.tensors:
            value = self._builder.make_value(tensor.name, tensor.dtype, tensor.shape)  # a tied table reads it by name
            value.const_value = data.append(tensor)
            graph.register_initializer(value)
            stored[tensor.name] = value
        node.op_type, node.domain, node.name = quantized.op_type, quantized.domain, quantized.name
        node.attributes.update({attribute.name: attribute for attribute in quantized.attributes})
        node.resize_inputs(1 + len(quantized.inputs))
        for index, name in enumerate(quantized.inputs, start=1):
            node.replace_input_with(index, stored[name])
        if not weight.uses():
            graph.initializers.pop(weight.name)

    def _changed(self, source: torch.Tensor | None) -> bool:
        return source is None or any(self._weights.changed(name) for name in names(source))

    def _quantize(self, node: ir.Node, source: torch.Tensor | None) -> _Quantized:
        if source is None:
            raise TypeError(f"{node.name}: found a weight that is not the model's")
        depth, width = source.shape
        step = max(1, _PIECE // depth)
        quantize = self._k_quantize if self._builder.quantization_algo == "k_quant" else self._quantize_piece
        linear = {name.removesuffix(".weight") for name in names(source)} - {HEAD, EMBEDDING}
        if self._moments and linear:  # what reads the head's input is not its embedding's rows: rounded to nearest
            quantize = functools.partial(self._gptq, self._moments.of(linear))
        pieces = [quantize(node, piece) for piece in columns(source, step)]
        first = pieces[0]
        joined = [
            ir.Tensor(np.concatenate([piece.tensors[index].numpy() for piece in pieces]), name=tensor.name)
            for index, tensor in enumerate(first.tensors)
        ]
        attributes = [attribute for attribute in first.attributes if attribute.name != "N"]
        return replace(first, attributes=(*attributes, ir.AttrInt64("N", width)), tensors=tuple(joined))

    def _k_quantize(self, node: ir.Node, piece: torch.Tensor) -> _Quantized:
        depth = piece.shape[0]
        with np.errstate(divide="ignore", invalid="ignore"):  # blocks of one value
            even = self._quantize_piece(node, k_quant.even(piece, self._builder.quant_attrs["matmul_block_size"]))
        attributes = {attribute.name: attribute for attribute in even.attributes}
        quants, scales, zeros = even.inputs
        arrays = {tensor.name: tensor.numpy() for tensor in even.tensors}
        blocks = k_quant.Blocks(attributes["bits"].as_int(), arrays[quants], arrays[scales], arrays[zeros])
        blocks = k_quant.corrected(blocks, piece.numpy())
        arrays = {quants: blocks.quants, scales: blocks.scales, zeros: blocks.zeros}
        return replace(
            even,
            attributes=tuple((attributes | {"K": ir.AttrInt64("K", depth)}).values()),
            tensors=tuple(ir.Tensor(arrays[tensor.name], name=tensor.name) for tensor in even.tensors),
        )

    def _gptq(self, seconds: Moments, node: ir.Node, piece: torch.Tensor) -> _Quantized:
        """A piece rounded by GPTQ, in the form of the builder's `default`: scale · (q - 8)."""
        nearest = self._quantize_piece(node, piece)
        quants, scales = nearest.inputs
        arrays = {tensor.name: tensor.numpy() for tensor in nearest.tensors}
        width, count, half = arrays[quants].shape
        missing = count * 2 * half - len(piece)  # the last block is filled up with zeros
        padded = np.pad(piece.numpy(), ((0, missing), (0, 0)))
        rounded = round_by(padded, filled_up(seconds, missing), bits=4, block=2 * half, signed=True)
        levels = (rounded.values.astype(np.int8) + 8).astype(np.uint8).T.reshape(width, count, 2 * half)
        arrays[quants] = levels[..., ::2] | levels[..., 1::2] << np.uint8(4)
        arrays[scales] = np.ascontiguousarray(rounded.scales.T).reshape(arrays[scales].shape)
        return replace(
            nearest, tensors=tuple(ir.Tensor(arrays[tensor.name], name=tensor.name) for tensor in nearest.tensors)
        )

    def _quantize_piece(self, node: ir.Node, piece: torch.Tensor) -> _Quantized:
        """A piece of a node's weight, quantized by the builder's `to_nbits`, which works on `builder.model`."""
        x, y = (ir.Value(name=end.name, shape=end.shape, type=end.type) for end in (node.inputs[0], *node.outputs))
        tensor = ir.Tensor(piece.contiguous().numpy(), name=node.inputs[1].name)
        weight = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        alone = ir.Graph(
            [x],
            [y],
            nodes=[ir.node(node.op_type, [x, weight], outputs=[y], name=node.name)],
            initializers=[weight],
            opset_imports=dict(node.graph.opset_imports),
            name=node.graph.name,
        )
        whole = self._builder.model
        self._builder.model = ir.Model(alone, ir_version=whole.ir_version)
        try:
            graph = self._builder.to_nbits().graph
        finally:
            self._builder.model = whole
        (result,) = graph
        if result.op_type == node.op_type:
            raise ValueError(f"{node.name}: the builder does not quantize it")
        weight.const_value = None  # a graph is a reference cycle, and keeps its tensors until it is collected
        return _quantized(result, tuple(_take(value) for value in graph.initializers.values()))


def _take(value: ir.Value) -> ir.Tensor:
    """A copy of the value's tensor, which is let go: a protobuf's tensor keeps the memory of its whole model."""
    tensor = ir.Tensor(value.const_value.numpy().copy(), name=value.name)
    value.const_value = None
    return tensor


def _kept(node: ir.Node) -> _Quantized:
    return _quantized(node, tuple(value.const_value for value in node.inputs[1:]))


def _quantized(node: ir.Node, tensors: tuple[ir.TensorProtocol, ...]) -> _Quantized:
    return _Quantized(
        node.op_type,
        node.domain,
        node.name or "",
        tuple(value.name for value in node.inputs[1:]),
        tuple(node.attributes.values()),
        tensors,
    )


def source_of(tensor: ir.TensorProtocol) -> torch.Tensor | None:
    """The torch tensor behind the builder's lazy or plain tensor; None where it is not of torch."""
    if isinstance(tensor, ir.LazyTensor):
        tensor = tensor.raw()
    return tensor.raw if isinstance(tensor.raw, torch.Tensor) else None
