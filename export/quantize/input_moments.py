"""The second moments of the inputs of a model's linear modules, in a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from dualtune_edge.export.base.safetensors_file import system_errors
from dualtune_edge.export.quantize.gptq import Moments


class InputMoments:
    """The moments in a file, read for one matrix at a time.

    A tensor is one of a module's `Moments`; its name lists the modules that read the same input, and its place:
    `model.layers.0.mlp.gate_proj,model.layers.0.mlp.up_proj/0`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, "numpy") as file:
            names = sorted(file.keys(), key=lambda name: int(name.rpartition("/")[2]))
        self._tensors: dict[str, list[str]] = {}
        for name in names:
            for module in name.rpartition("/")[0].split(","):
                self._tensors.setdefault(module, []).append(name)

    def of(self, modules: Collection[str]) -> Moments:
        """The moments of the input that these modules share.

        Raises:
            KeyError: none of them was measured.

        """
        measured = next((module for module in sorted(modules) if module in self._tensors), None)
        if measured is None:
            raise KeyError(f"no measured input of {', '.join(sorted(modules))}")
        with safe_open(self._path, "numpy") as file:
            return tuple(file.get_tensor(name) for name in self._tensors[measured])


def write_moments(moments: Mapping[tuple[str, ...], Moments], path: Path) -> None:
    """Write the moments of each input, by the modules that read it."""
    tensors = {
        f"{','.join(modules)}/{place}": np.ascontiguousarray(second)
        for modules, seconds in moments.items()
        for place, second in enumerate(seconds)
    }
    with system_errors():
        save_file(tensors, path)
