from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import onnx_ir as ir
import pytest

from dualtune_edge.export.graph.model_files import DataFile

VALUES = np.arange(3_000, dtype=np.float32)


class Refused(ir.Tensor):
    """A tensor whose first write ends half-way, and without a reason, as numpy ends it."""

    def tofile(self, file: IO[bytes]) -> None:
        file.write(self.tobytes()[:1_001])
        raise OSError("12000 requested and 1001 written")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file grows beyond 5,000 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_failed_for_a_moment_is_made_good(tmp_path: Path) -> None:
    with DataFile(tmp_path / "model.onnx.data") as data:
        first = data.append(ir.Tensor(VALUES[:5], name="a"))
        second = data.append(Refused(VALUES, name="b"))
        third = data.append(ir.Tensor(VALUES[5:], name="c"))
    for tensor, values in ((first, VALUES[:5]), (second, VALUES), (third, VALUES[5:])):
        assert np.array_equal(tensor.numpy(), values)
    assert (tmp_path / "model.onnx.data").read_bytes() == b"".join(
        v.tobytes() for v in (VALUES[:5], VALUES, VALUES[5:])
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE that is an error, and no signal")
@pytest.mark.usefixtures("small_files")
def test_an_error_has_the_systems_reason(tmp_path: Path) -> None:
    value = ir.Value(name="rows", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([3_000]))
    with pytest.raises(OSError, match="large") as by_tensor, DataFile(tmp_path / "a") as data:
        data.append(ir.Tensor(VALUES, name="a"))
    with pytest.raises(OSError, match="large") as by_rows, DataFile(tmp_path / "b") as data:
        data.append_rows(value, [VALUES[:500], VALUES[500:]])
    assert by_tensor.value.errno == by_rows.value.errno == errno.EFBIG
