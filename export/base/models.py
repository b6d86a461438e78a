"""A checkpoint as transformers' model: without numbers, or in float32."""

from __future__ import annotations

import copy

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import HEAD


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


def load_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model in float32, ready for inference, its parameters frozen."""
    model, weights = unfilled_model(checkpoint), checkpoint.weights
    for path, module in model.named_modules():
        for leaf, _ in list(module.named_parameters(recurse=False)):
            if not (checkpoint.tied and path == HEAD):
                value = weights.read(f"{path}.{leaf}")
                setattr(module, leaf, torch.nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    return model.eval()
