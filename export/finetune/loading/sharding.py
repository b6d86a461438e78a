"""A frozen base that several processes hold together: each has a part of every weight (PyTorch's FSDP2).

A layer is gathered from all processes for its forward and for its backward, and freed behind each. So all processes
have to make the same passes. The adapter is added afterwards and is no part of it: each process holds the whole.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import fill_part, held_in, unfilled_model

_LAYERS: Final = "model.layers"


def load_sharded(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, count: int) -> PreTrainedModel:
    """The base, of which this one of `count` processes holds its part; it is read layer by layer."""
    model = unfilled_model(checkpoint)
    held = held_in(device, dtype)
    mesh = init_device_mesh(device.type, (count,))
    for index, layer in enumerate(model.get_submodule(_LAYERS).children()):
        fill_part(layer, f"{_LAYERS}.{index}", checkpoint, held)
        fully_shard(layer.to(device), mesh=mesh, reshard_after_forward=True)
    fill_part(model, "", checkpoint, held)
    model.tie_weights()
    fully_shard(model.to(device), mesh=mesh, reshard_after_forward=True)
    return model.eval()


def is_sharded(model: Any) -> bool:
    """Whether a model, or the base in PEFT's, is of `load_sharded`."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def held_weights(model: PreTrainedModel, count: int) -> int:
    """The most weights that one of `count` processes holds while it reads: its part, and a layer or what is in none."""
    layers: list[int] = [
        sum(weight.numel() for weight in layer.parameters()) for layer in model.get_submodule(_LAYERS).children()
    ]
    whole: int = sum(weight.numel() for weight in model.parameters())
    return whole // count + max(*layers, whole - sum(layers))
