"""A graph's optional inputs, made plain ones: OpenVINO's provider binds none that has a default.

The graph of a bundle has its LoRA slots and `logits_at` twice, as inputs and as initializers of rank 0. Without the
initializers they are plain inputs.
"""

from __future__ import annotations

from typing import Final

from dualtune_edge.runtime.bundle.protobuf import LENGTH, fields, varint

# Numbers of fields in onnx/onnx.proto3.
_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_TENSOR_NAME, _INPUT_NAME = 8, 1


def without_defaults(model: bytes) -> bytes:
    """The bytes of a ModelProto without the initializers that are inputs of its graph too.

    Raises:
        ValueError: it is not a protobuf message.

    """
    parts: list[bytes | memoryview] = []
    for number, value, whole in fields(memoryview(model)):
        if number == _MODEL_GRAPH:
            graph = _graph_without_defaults(value)
            parts += [varint(number << 3 | LENGTH), varint(len(graph)), graph]
        else:
            parts.append(whole)
    return b"".join(parts)


def _graph_without_defaults(graph: memoryview) -> bytes:
    parts = list(fields(graph))
    inputs = {_name(value, _INPUT_NAME) for number, value, _ in parts if number == _GRAPH_INPUT}
    return b"".join(
        whole
        for number, value, whole in parts
        if number != _GRAPH_INITIALIZER or _name(value, _TENSOR_NAME) not in inputs
    )


def _name(message: memoryview, field: int) -> bytes:
    return next((bytes(value) for number, value, _ in fields(message) if number == field), b"")
