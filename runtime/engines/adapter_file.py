"""An .onnx_adapter file, mapped: its tensors take no memory of the process's own, and several processes share them.

onnxruntime's own reader copies the file into memory, 77 MB for rank 32 on a 0.5B model, adapter by adapter. The format
is a FlatBuffer (onnxruntime/lora/adapter_format/adapter_schema.fbs): tables whose fields are found by offsets. This
reads just that, and takes no offset on trust.
"""

from __future__ import annotations

import math
import mmap
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.bundle.plain_files import open_plain
from dualtune_edge.toolkit.errors import EngineError

_IDENTIFIER: Final = b"TORT"
_PARAMETERS: Final = 3  # field of the table Adapter
_NAME, _DIMS, _TYPE, _DATA = range(4)  # fields of the table Parameter
_TYPES: Final = {1: "<f4", 2: "<u1", 3: "<i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}


def map_adapter(path: Path) -> Mapping[str, NDArray[np.generic]]:
    """The tensors of an .onnx_adapter file by name, read-only views of the mapped file.

    Raises:
        EngineError: it cannot be read, or is no such file.

    """
    try:
        with open_plain(path) as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tensors = _tensors(data)
        if sys.platform != "win32":
            # Where a tensor is described 64 KB of its numbers were mapped as well: in all, half of a small adapter.
            data.madvise(mmap.MADV_DONTNEED)
    except (OSError, ValueError, struct.error) as error:
        raise EngineError(
            str(path), found=str(error), expected="an .onnx_adapter file", fix="Export the bundle again."
        ) from None
    return tensors


def _tensors(data: mmap.mmap) -> dict[str, NDArray[np.generic]]:
    if data[4:8] != _IDENTIFIER:
        raise ValueError(f"the mark {data[4:8]!r}")
    start, count = _vector(data, _field(data, _follow(data, 0), _PARAMETERS))
    tensors = {}
    for index in range(count):
        table = _follow(data, start + 4 * index)
        name, tensor = _text(data, _field(data, table, _NAME)), _tensor(data, table)
        if name in tensors:
            raise ValueError(f"two tensors named {name!r}")
        tensors[name] = tensor
    return tensors


def _tensor(data: mmap.mmap, table: int) -> NDArray[np.generic]:
    at, count = _vector(data, _field(data, table, _DIMS))
    shape = struct.unpack_from(f"<{count}q", data, at)
    kind = _number(data, "<i", _field(data, table, _TYPE))
    if kind not in _TYPES:
        raise ValueError(f"a tensor of type {kind}")
    dtype = np.dtype(_TYPES[kind])
    start, size = _vector(data, _field(data, table, _DATA))
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size or start + size > len(data):
        raise ValueError(f"{size} bytes for the shape {list(shape)}")
    return np.ndarray(shape, dtype, data, start)


def _field(data: mmap.mmap, table: int, index: int) -> int:
    """Where a field of a table lies."""
    layout = table - _number(data, "<i", table)
    if layout < 0:
        raise ValueError("an offset out of the file")
    entry = 4 + 2 * index
    offset = _number(data, "<H", layout + entry) if entry < _number(data, "<H", layout) else 0
    if not offset:
        raise ValueError("a field that is left out")
    return table + offset


def _follow(data: mmap.mmap, at: int) -> int:
    """Where an offset leads: it counts from its own place, forwards."""
    return at + _number(data, "<I", at)


def _vector(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Where a vector's first element lies, and how many there are."""
    start = _follow(data, at)
    count = _number(data, "<I", start)
    if start + 4 + count > len(data):
        raise ValueError("a vector that ends behind the file")
    return start + 4, count


def _number(data: mmap.mmap, form: str, at: int) -> int:
    number: int = struct.unpack_from(form, data, at)[0]
    return number


def _text(data: mmap.mmap, at: int) -> str:
    start, size = _vector(data, at)
    return data[start : start + size].decode("utf-8")
