"""A deeper model that computes what a trained one does: new layers add nothing until they are trained.

A new layer is a copy of the one below it whose two projections back into the stream are zero (Wu et al. 2024, LLaMA
Pro, section 3.2).
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from transformers import Qwen2ForCausalLM


def grown(model: Qwen2ForCausalLM, after: Sequence[int]) -> Qwen2ForCausalLM:
    """The model with a new layer after each layer of ``after``, counted from 0."""
    config = deepcopy(model.config)
    order = [
        (index, new) for index in range(config.num_hidden_layers) for new in (False, True) if not new or index in after
    ]
    config.num_hidden_layers = len(order)
    config.layer_types = ["full_attention"] * len(order)
    deeper = Qwen2ForCausalLM(config)
    rest = {name: weight for name, weight in model.state_dict().items() if not name.startswith("model.layers.")}
    deeper.load_state_dict(rest, strict=False)
    for layer, (index, new) in zip(deeper.model.layers, order, strict=True):
        layer.load_state_dict(model.model.layers[index].state_dict())
        if new:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return deeper
