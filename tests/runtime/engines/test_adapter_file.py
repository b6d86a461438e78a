"""The mapped reader of .onnx_adapter files tells what onnxruntime's own tells, and refuses what is no such file."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dualtune_edge.runtime.engines.adapter_file import map_adapter
from dualtune_edge.toolkit.errors import EngineError


def write(path: Path, tensors: dict[str, NDArray[np.generic]]) -> bytes:
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    file.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()})
    file.export_adapter(str(path))
    return path.read_bytes()


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        arrays.arrays(
            st.sampled_from([np.float32, np.float16, np.int64, np.uint8]),
            arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_reads_what_onnxruntime_writes(tmp_path: Path, tensors: dict[str, NDArray[np.generic]]) -> None:
    write(tmp_path / "a", tensors)
    found = map_adapter(tmp_path / "a")
    assert set(found) == set(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert not found[name].flags.writeable


def test_a_bundles_adapters_are_read_as_onnxruntime_reads_them(exported: Path) -> None:
    (path, *_) = (exported / "adapters").glob("*.onnx_adapter")
    theirs = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
    ours = map_adapter(path)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value.numpy())


def test_damage_is_refused_or_seen_in_the_values(tmp_path: Path) -> None:
    """No bytes make it read outside the file, hang, or raise anything else."""
    whole = write(tmp_path / "a", {"x.A": np.ones((4, 2), np.float32), "x.B": np.ones((2, 3), np.float32)})
    draw = random.Random(0)  # noqa: S311 - seeded, not secret
    cases = [whole[: draw.randrange(len(whole))] for _ in range(100)]
    for _ in range(1_000):
        at = draw.randrange(len(whole))
        cases.append(whole[:at] + bytes([draw.randrange(256)]) + whole[at + 1 :])
    refused = 0
    for number, case in enumerate(cases):
        path = tmp_path / str(number)
        path.write_bytes(case)
        try:
            assert all(array.nbytes <= len(case) for array in map_adapter(path).values())
        except EngineError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("content", [None, b"", b"TORT", b"\0" * 64, b"\x08\0\0\0TORT" + b"\xff" * 64])
def test_what_is_no_adapter_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(EngineError, match=r"expected an \.onnx_adapter file"):
        map_adapter(tmp_path / "a")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what is resident of a mapped file")
def test_what_is_mapped_takes_memory_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a", {f"{number}": np.ones((64, 1024), np.float32) for number in range(8)})

    def resident() -> int:
        _, _, found = Path("/proc/self/smaps").read_text(encoding="utf-8").partition(str(tmp_path / "a"))
        return int(found.partition("Rss:")[2].split()[0])  # KB

    tensors = map_adapter(tmp_path / "a")
    assert resident() == 0
    assert sum(float(array.sum()) for array in tensors.values()) == 8 * 64 * 1024
    assert resident() >= 8 * 256
