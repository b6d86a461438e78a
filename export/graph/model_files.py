"""model.onnx and model.onnx.data: the names, the weights written front to back, and a graph replaced by another."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

MODEL: Final = "model.onnx"
DATA: Final = "model.onnx.data"


class _Writable(Protocol):
    """A tensor or an array."""

    def tofile(self, file: Any, /) -> None: ...

    def tobytes(self) -> bytes: ...


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
        """Write a tensor's bytes; a tensor that refers to them."""
        start = self._file.tell()
        self._write(tensor)
        return self._reference(tensor.name or "", tensor.dtype, tensor.shape, start)

    def append_rows(self, value: ir.Value, rows: Iterable[NDArray[np.generic]]) -> ir.ExternalTensor:
        """Write a value's tensor, which comes some rows at a time; a tensor that refers to it."""
        start = self._file.tell()
        for piece in rows:
            self._write(piece)
        return self._reference(value.name or "", value.dtype, value.shape, start)

    def _write(self, values: _Writable) -> None:
        """Write the bytes of some values.

        numpy leaves out why the system refuses a write. So they are written once more, by Python: that says it, or the
        values are written, if the disk has room again.
        """
        start = self._file.tell()
        try:
            values.tofile(self._file)
        except OSError as error:
            if error.errno is not None:
                raise
            self._file.seek(start)
            self._file.truncate()
            self._file.write(values.tobytes())
            self._file.flush()

    def _reference(self, name: str, dtype: ir.DataType, shape: ir.Shape, start: int) -> ir.ExternalTensor:
        length = self._file.tell() - start
        return ir.ExternalTensor(
            self._path.name, start, length, dtype, shape=shape, name=name, base_dir=self._path.parent
        )


def replace_model(model: ir.Model, folder: Path) -> None:
    """Write `model` as the model.onnx of `folder`, whole or not at all. model.onnx.data is not written."""
    partial = folder / f"{MODEL}.partial"
    ir.save(model, partial)  # external tensors stay references to model.onnx.data
    partial.replace(folder / MODEL)
