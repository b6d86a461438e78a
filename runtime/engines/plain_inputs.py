"""A graph's optional inputs, made plain ones: OpenVINO's provider binds none that has a default.

The graph of a bundle has its LoRA slots and `logits_at` twice, as inputs and as initializers of rank 0. Without the
initializers they are plain inputs. onnx is not installed on a device, so this reads protobuf's wire format itself: a
message is a run of fields, each a key (number and wire type) and a value (onnx/onnx.proto3, message ModelProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_TENSOR_NAME, _INPUT_NAME = 8, 1


def without_defaults(model: bytes) -> bytes:
    """The bytes of a ModelProto without the initializers that are inputs of its graph too.

    Raises:
        ValueError: it is not a protobuf message.

    """
    parts: list[bytes | memoryview] = []
    for number, value, whole in _fields(memoryview(model)):
        if number == _MODEL_GRAPH:
            graph = _graph_without_defaults(value)
            parts += [_varint(number << 3 | _LENGTH), _varint(len(graph)), graph]
        else:
            parts.append(whole)
    return b"".join(parts)


def _graph_without_defaults(graph: memoryview) -> bytes:
    fields = list(_fields(graph))
    inputs = {_name(value, _INPUT_NAME) for number, value, _ in fields if number == _GRAPH_INPUT}
    return b"".join(
        whole
        for number, value, whole in fields
        if number != _GRAPH_INITIALIZER or _name(value, _TENSOR_NAME) not in inputs
    )


def _name(message: memoryview, field: int) -> bytes:
    return next((bytes(value) for number, value, _ in _fields(message) if number == field), b"")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """(number, value, key and value) of each field."""
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, end = _read_varint(message, position)
        elif wire == _LENGTH:
            length, position = _read_varint(message, position)
            end = position + length
        elif wire in {_FIXED64, _FIXED32}:
            end = position + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire} at byte {start}")
        if end > len(message):
            raise ValueError(f"a field at byte {start} that ends behind the message")
        yield number, message[position:end], message[start:end]
        position = end


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number that ends behind the message")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
