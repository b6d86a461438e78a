"""Writes `folders/`: what Optimum exports of the small models of `shapes.json`, without their weights.

    python make_folders.py PYTHON

PYTHON is the interpreter of an environment with the extra `export-optimum`, in which `dualtune-edge trace` works; this
script itself runs in that of the tests. A weight is kept as the name of the checkpoint's, and what was done to it.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
from conftest import HERE, SMALL, shapes, written
from safetensors.numpy import load_file


def main(python: str) -> None:
    (HERE / "folders").mkdir(exist_ok=True)
    for name in shapes():
        with tempfile.TemporaryDirectory() as scratch:
            base, out = written(name, Path(scratch) / "base"), Path(scratch) / "graph"
            code = "from dualtune_edge.cli import main; main()"
            subprocess.run([python, "-c", code, "trace", str(base), "-o", str(out)], check=True)
            data = lzma.compress(stripped(out / "model.onnx", base))
        (HERE / "folders" / f"{name}.onnx.xz").write_bytes(data)


def stripped(path: Path, base: Path) -> bytes:
    """The model with names in the place of weights."""
    model = ir.load(path)
    weights = load_file(base / "model.safetensors")
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        if tensor.size > SMALL:
            value.const_value = ir.ExternalTensor(
                _origin(tensor.numpy(), weights),
                0,
                tensor.nbytes,
                tensor.dtype,
                shape=tensor.shape,
                name=name,
                base_dir=".",
            )
    return ir.to_proto(model).SerializeToString()


def _origin(found: np.ndarray, weights: dict[str, np.ndarray]) -> str:
    for name, weight in weights.items():
        for change, made in (("", weight), ("T", weight.T), ("1", weight + np.float32(1))):
            if found.shape == made.shape and np.array_equal(found, made):
                return f"{name}:{change}"
    raise ValueError(f"a weight of shape {found.shape} is none of the checkpoint's")


if __name__ == "__main__":
    main(sys.argv[1])
