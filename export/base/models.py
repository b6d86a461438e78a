"""A checkpoint as transformers' model: without numbers, or with those of its files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import HEAD

Held: TypeAlias = Callable[[torch.nn.Module, str, torch.Tensor], torch.nn.Parameter]


def meta_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model on the meta device, where parameters have shapes and no bytes."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(checkpoint.config))
    return model


def unfilled_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model in float32 with its buffers; its parameters are on the meta device."""
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(checkpoint.config), dtype=torch.float32)
    return model


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model of new modules with the same numbers: what is done to its modules does not reach the original.

    Matrices share the original's memory, so nothing may be written into them; vectors, such as biases, are copies.
    """
    parameters = {}
    for parameter in model.parameters():
        numbers = parameter.data if parameter.dim() > 1 else parameter.data.clone()
        parameters[id(parameter)] = torch.nn.Parameter(numbers, requires_grad=False)
    return copy.deepcopy(model, parameters)


def load_model(
    checkpoint: Checkpoint, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The model ready for inference, its parameters frozen, on a device and in a number format."""
    return fill(unfilled_model(checkpoint), checkpoint, held_in(device, dtype)).to(device=device)


def held_in(device: torch.device | str, dtype: torch.dtype) -> Held:
    """What keeps each weight frozen on a device, in a number format."""

    def held(_module: torch.nn.Module, _leaf: str, value: torch.Tensor) -> torch.nn.Parameter:
        return torch.nn.Parameter(value.to(device=device, dtype=dtype), requires_grad=False)

    return held


def fill(model: PreTrainedModel, checkpoint: Checkpoint, held: Held) -> PreTrainedModel:
    """The model with the checkpoint's weights, ready for inference: each is read in float32, and kept as `held` says.

    They are read one by one, so no more than one is there in float32 besides.
    """
    fill_part(model, "", checkpoint, held)
    model.tie_weights()
    return model.eval()


def fill_part(part: torch.nn.Module, at: str, checkpoint: Checkpoint, held: Held) -> None:
    """`fill` of a part of a model, as far as its weights are on the meta device still; `at`: its path."""
    for name, module in part.named_modules():
        path = ".".join(filter(None, (at, name)))
        for leaf, weight in list(module.named_parameters(recurse=False)):
            if weight.is_meta and not (checkpoint.tied and path == HEAD):
                setattr(module, leaf, held(module, leaf, checkpoint.weights.read(f"{path}.{leaf}")))
