"""A base model in float32 that holds one layer at a time: a checkpoint of 15 GB would take 30."""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from dualtune_edge.export.checkpoint import Checkpoint, stored_weights
from dualtune_edge.export.weights import StoredWeights

LARGE: Final = 1 << 30  # bytes of weights in float32, from which on they are not all held at once
_LAYERS: Final = "model.layers"


def float32_bytes(checkpoint: Checkpoint) -> int:
    """Of all weights."""
    return 4 * sum(math.prod(stored.shape) for stored in stored_weights(checkpoint.folder).values())


def streamed_model(checkpoint: Checkpoint) -> Any:
    """The model, ready for inference: each layer's matrices are read before its forward and dropped after it.

    Embedding, head, norms and biases stay. PEFT can be put on it: the matrices have their shapes all the time, and
    zeros for values while their layer does not run.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True), dtype=torch.float32
        )
    weights = StoredWeights(checkpoint.folder)
    for prefix, module in model.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            name = f"{prefix}.{leaf}"
            large = name.startswith(_LAYERS) and parameter.dim() > 1
            value = _zeros(parameter.shape) if large else weights.read(name)
            setattr(module, leaf, torch.nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    for index, layer in enumerate(model.get_submodule(_LAYERS)):
        _Streamed(layer, f"{_LAYERS}.{index}", weights)
    return model.eval()


class _Streamed:
    """The matrices of one layer; kept alive by the layer's hooks."""

    def __init__(self, layer: torch.nn.Module, prefix: str, weights: StoredWeights) -> None:
        self._weights = weights
        # Taken now, by the names in the checkpoint: PEFT moves the modules, and leaves their parameters.
        self._matrices = [(f"{prefix}.{name}", each) for name, each in layer.named_parameters() if each.dim() > 1]
        layer.register_forward_pre_hook(self._read)
        layer.register_forward_hook(self._drop)

    def _read(self, *_: object) -> None:
        for name, parameter in self._matrices:
            parameter.data = self._weights.read(name)

    def _drop(self, *_: object) -> None:
        for _name, parameter in self._matrices:
            parameter.data = _zeros(parameter.shape)


def _zeros(shape: torch.Size) -> torch.Tensor:
    """Zeros of this shape in the memory of one."""
    return torch.zeros(()).expand(shape)
