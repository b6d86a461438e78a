"""Training through int4: the forward pass has linear weights as onnxruntime stores them; gradients pass unchanged."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_BLOCK: Final = 32  # weights that share a scale, along the input


class Int4(nn.Module):
    """Rounds to symmetric int4 in blocks as onnxruntime does: the largest weight of a block becomes -8."""

    def forward(self, weight: Tensor) -> Tensor:  # noqa: D102 - nn.Module's
        return weight + (rounded(weight) - weight).detach()


def rounded(weight: Tensor) -> Tensor:
    """``weight`` (out, in) on its int4 grid."""
    blocks = weight.view(weight.shape[0], -1, _BLOCK)  # (out, blocks, block)
    high, low = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    scale = torch.where(high > -low, high, low) / -8
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return ((blocks / scale).round().clamp(-8, 7) * scale).view_as(weight)


def see_int4(model: nn.Module) -> None:
    """Round the layers' linear weights in every forward pass."""
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            parametrize.register_parametrization(module, "weight", Int4())


def see_float(model: nn.Module) -> None:
    """Undo `see_int4`; the weights stay unrounded."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
