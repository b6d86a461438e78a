"""Protobuf's wire format, as far as an ONNX graph needs it: onnx is not installed on a device.

A message is a run of fields, each a key (number and wire type) and a value (onnx/onnx.proto3 names them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LENGTH: Final = 2  # wire type of texts, bytes and messages
_VARINT, _FIXED64, _FIXED32 = 0, 1, 5  # the other wire types
_LONGEST: Final = 70  # bits of a number: 64, seven at a time


def fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """(number, value, key and value) of each field.

    Raises:
        ValueError: it is not a protobuf message.

    """
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        if key >= 1 << 32:
            raise ValueError(f"a field at byte {start} of a number beyond all")
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, end = _read_varint(message, position)
        elif wire == LENGTH:
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


def number(value: memoryview) -> int:
    """The value of a field of wire type 0.

    Raises:
        ValueError: it does not end.

    """
    return _read_varint(value, 0)[0]


def varint(value: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while position < len(message) and shift < _LONGEST:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number that does not end")
