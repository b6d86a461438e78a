"""model.onnx.data, written front to back: what has been written need not stay in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import onnx_ir as ir


class DataFile:
    """Tensors packed one behind the other, as onnx-ir packs them. A context manager; the file must be new."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = self._path.open("xb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        """Write a tensor's bytes, and say where they are."""
        offset = self._file.tell()
        if isinstance(tensor, ir.ExternalTensor):
            tensor.tofile(self._file)  # a piece at a time
        else:
            self._file.write(tensor.tobytes())
        return ir.ExternalTensor(
            self._path.name,
            offset,
            self._file.tell() - offset,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name or "",
            base_dir=self._path.parent,
        )
