"""Optimum's weights are the checkpoint's, bit for bit: each initializer is compared before its name stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.optimum.cursor import FIX, Cursor
from dualtune_edge.toolkit.errors import GraphError

_ROWS: Final = 1 << 22  # numbers compared at a time


class WeightBook:
    """Compares weights of a graph with a checkpoint's, and remembers which were used."""

    def __init__(self, cursor: Cursor, checkpoint: Checkpoint) -> None:
        self._cursor, self._tied = cursor, checkpoint.tied
        self._stored, self._weights = checkpoint.stored, checkpoint.weights
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def matrix(self, value: ir.Value | None, name: str) -> None:
        """Claim that a MatMul's second operand is the transpose of this weight.

        Raises:
            GraphError: it is not.

        """
        transpose = value.producer() if value is not None else None
        if transpose is not None and transpose.op_type == "Transpose":
            self._cursor.seen.add(transpose)
            if "perm" in transpose.attributes:  # without it all axes are reversed
                self._cursor.attribute(transpose, "perm", (1, 0))
            self._same(transpose.inputs[0], name)
        else:
            self._same(value, name, transposed=True)

    def table(self, value: ir.Value | None, name: str) -> None:
        """Claim that a value is this weight, not transposed."""
        self._same(value, name)

    def scale(self, value: ir.Value | None, name: str) -> float:
        """Claim that a norm's factor is this weight plus 0 or 1, and say which."""
        node = value.producer() if value is not None else None
        if node is not None and node.op_type == "Add":
            self._cursor.seen.add(node)
            self._same(self._cursor.operands(node, 1.0), name)
            return 1.0
        for offset in (0.0, 1.0):
            if self._equal(value, name, offset=offset):
                return offset
        raise self._other(value, name)

    def refuse_unused(self) -> None:
        """Raise if the checkpoint has a weight that the graph does not read."""
        optional = {f"{HEAD}.weight", f"{EMBEDDING}.weight"} if self._tied else set()
        unused = {name for name in self._stored.keys() - self._used - optional if not name.endswith("inv_freq")}
        if unused:
            raise GraphError(
                str(self._cursor.path),
                found=f"no use of {min(unused)}",
                expected="a graph that reads every weight of the checkpoint",
                fix=FIX,
            )

    def _same(self, value: ir.Value | None, name: str, *, transposed: bool = False) -> None:
        if not self._equal(value, name, transposed=transposed):
            raise self._other(value, name)

    def _equal(self, value: ir.Value | None, name: str, *, transposed: bool = False, offset: float = 0.0) -> bool:
        if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
            return False
        numbers = value.const_value.numpy()
        for rows, stored in self._pieces(name):
            piece = numbers[:, rows].T if transposed and numbers.ndim == 2 else numbers[rows]
            bits = np.ascontiguousarray(piece).view(np.int32)
            expected = stored + np.float32(offset) if offset else stored
            if numbers.size != self._size(name) or not np.array_equal(bits, expected.view(np.int32)):
                return False
        self._used.add(name)
        return True

    def _size(self, name: str) -> int:
        return int(np.prod(self._stored[self._source(name)].shape))

    def _source(self, name: str) -> str:
        absent = name == f"{HEAD}.weight" and (self._tied or name not in self._stored)
        return f"{EMBEDDING}.weight" if absent else name

    def _pieces(self, name: str) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        source = self._source(name)
        if source not in self._stored:
            raise GraphError(
                str(self._cursor.path),
                found=f"a weight in the place of {name}",
                expected="only the checkpoint's weights",
                fix=FIX,
            )
        count, *rest = self._stored[source].shape
        step = max(1, _ROWS // int(np.prod(rest, dtype=int)))
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            yield rows, self._weights.read(name, rows).numpy()

    def _other(self, value: ir.Value | None, name: str) -> GraphError:
        found = "a value that is computed" if value is None or value.const_value is None else "other numbers"
        return GraphError(
            f"{self._cursor.path}, {value.name if value is not None else name}",
            found=found,
            expected=f"the checkpoint's {name}, bit for bit",
            fix="Name the folder that was exported from this base in fp32.",
        )
