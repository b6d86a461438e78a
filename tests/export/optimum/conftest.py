"""Small folders as Optimum writes them: its graphs from `folders/`, weights from checkpoints that are made anew."""

from __future__ import annotations

import functools
import json
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from safetensors.numpy import load_file

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint

HERE: Final = Path(__file__).parent
SMALL: Final = 64  # a constant of so many numbers is no weight
_CHANGES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "": lambda weight: weight,
    "T": lambda weight: np.ascontiguousarray(weight.T),
    "1": lambda weight: weight + np.float32(1),
}


@dataclass(frozen=True)
class Traced:
    """A base and Optimum's folder of it."""

    checkpoint: Checkpoint
    folder: Path


@functools.cache
def shapes() -> dict[str, Shape]:
    """Name → what its small model is like."""
    given = json.loads((HERE / "shapes.json").read_text(encoding="utf-8"))
    return {name: Shape(**fields) for name, fields in given.items()}


def written(name: str, base: Path) -> Path:
    """The base of this name, written."""
    write_checkpoint(base, shapes()[name], seed=3, dtype=torch.float32)
    return base


def traced(name: str, folder: Path) -> Traced:
    """The base of this name, and the graph that Optimum wrote of it, with the base's weights."""
    base = written(name, folder / "base")
    model = ir.from_proto(_proto(lzma.decompress((HERE / "folders" / f"{name}.onnx.xz").read_bytes())))
    weights = load_file(base / "model.safetensors")
    for key, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            origin, _, change = str(value.const_value.location).rpartition(":")
            value.const_value = ir.Tensor(_CHANGES[change](weights[origin]), name=key)
    out = folder / "graph"
    out.mkdir()
    ir.save(model, out / "model.onnx")
    return Traced(read_checkpoint(base), out)


@pytest.fixture(scope="session")
def make_traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Traced]:
    """`make_traced(name)`: see `traced`; each is made once."""
    return functools.cache(lambda name: traced(name, tmp_path_factory.mktemp("traced")))


def _proto(data: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(data)
