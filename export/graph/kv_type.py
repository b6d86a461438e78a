"""A KV cache in int8: GroupQueryAttention rounds keys and values as it stores them, by constant scales.

Every channel of every layer has its own scale, since some channels of keys are many times as large as others. Attention
is computed in float32 on the stored values. `past_key_values.*` and `present.*` become int8; nothing else changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.export.graph.model_files import MODEL, replace_model
from dualtune_edge.toolkit.errors import GraphError

_SCALES: Final = 12  # inputs 12 and 13 of GroupQueryAttention: of keys, of values
_HALVES: Final = (("key", "k"), ("value", "v"))
_ATTRIBUTES: Final = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}


def store_kv_in_int8(folder: Path, scales: NDArray[np.float32]) -> None:
    """Change the cache of model.onnx from float32 to int8.

    Args:
        folder: holds model.onnx.
        scales: the value of the integer 1, by channel of keys and values: shape (layers, 2, heads, head_dim).

    Raises:
        GraphError: the number of layers differs, or a cache is not in float32.

    """
    path = folder / MODEL
    model = ir.load(path)
    nodes = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
    _require(len(nodes) == len(scales), path, f"{len(nodes)} nodes of attention", f"{len(scales)}, one a layer")
    values = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for layer, node in enumerate(nodes):
        node.resize_inputs(max(len(node.inputs), _SCALES + 2))
        for index, (half, letter) in enumerate(_HALVES):
            for name in (f"past_key_values.{layer}.{half}", f"present.{layer}.{half}"):
                cache = values.get(name)
                used = cache is not None and cache in (*node.inputs, *node.outputs)
                dtype = cache.dtype if cache is not None and used else "none"
                _require(dtype == ir.DataType.FLOAT, path, f"{node.name} with {name} {dtype}", "FLOAT")
                values[name].dtype = ir.DataType.INT8
            scale = _initializer(
                model.graph, f"model.layers.{layer}.attn.{letter}_scale", scales[layer, index].reshape(-1)
            )
            node.replace_input_with(_SCALES + index, scale)
        for name, value in _ATTRIBUTES.items():
            node.attributes[name] = ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrString(name, value)
    replace_model(model, folder)
    check_kv_in_int8(folder, scales)


def check_kv_in_int8(folder: Path, scales: NDArray[np.float32]) -> None:
    """Check the written graph: every cache is in int8, every layer has its scales.

    Raises:
        GraphError: names the value or node, what was found and what was expected.

    """
    path = folder / MODEL
    graph = ir.load(path).graph
    for value in (*graph.inputs, *graph.outputs):
        if (value.name or "").startswith(("past_key_values.", "present.")):
            _require(value.dtype == ir.DataType.INT8, path, f"{value.name} {value.dtype}", "INT8")
    nodes = [node for node in graph if node.op_type == "GroupQueryAttention"]
    for layer, node in enumerate(nodes):
        attributes = {name: node.attributes[name].value for name in _ATTRIBUTES if name in node.attributes}
        _require(attributes == _ATTRIBUTES, path, f"{node.name} with {attributes}", str(_ATTRIBUTES))
        for index in range(2):
            scale = node.inputs[_SCALES + index]
            values = None if scale is None or scale.const_value is None else scale.const_value.numpy()
            same = values is not None and np.array_equal(values, scales[layer, index].reshape(-1))
            _require(same, path, f"{node.name} with other scales", "those that were measured")


def _initializer(graph: ir.Graph, name: str, values: NDArray[np.float32]) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(values), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape([len(values)]), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _require(holds: bool, path: Path, found: str, expected: str) -> None:  # noqa: FBT001 - a condition, not an option
    if not holds:
        raise GraphError(
            str(path), found=found, expected=expected, fix="Report this with the versions of the packages."
        )
