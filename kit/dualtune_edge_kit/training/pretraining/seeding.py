"""A structured initialization: the base model starts with an induction circuit, which training refines.

Copying a value needs two heads in a row (Olsson et al. 2022, In-context Learning and Induction Heads): the first moves
to a token what came before it, the second attends to the place after an equal token and copies what is there. A small
model finds this pair only after most of the training that two cores can do. Initialized with it, it learns the rest.
"""

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

_EMBEDDING = 0.1  # standard deviation, at which seeded heads and the others have like weight
_SLOW = 12  # RoPE's pairs from here on rotate so slowly that they carry content over hundreds of tokens


def seed_copying(model: Qwen2ForCausalLM, seed: int) -> None:
    """Set biases and projections of a few heads in the first two layers; all other weights stay random."""
    draw = torch.Generator().manual_seed(seed)
    hidden = model.config.hidden_size
    width = model.model.layers[0].self_attn.head_dim
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    basis = torch.linalg.qr(torch.randn(hidden, hidden, generator=draw)).Q  # (hidden, hidden), orthonormal
    content, memory = basis[:width], _directions(hidden, width, draw)  # both (width, hidden)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, _EMBEDDING, generator=draw)
        first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
        for group, distance in enumerate((1, 2, 3)):
            key, query = group * width, group * shared * width
            turns, weights = model.model.rotary_emb.inv_freq, _quick(width // 2)
            first.k_proj.bias[key : key + width // 2] = weights
            # The key's bias rotated back by the distance: there RoPE makes the product largest.
            first.q_proj.bias[query : query + width // 2] = weights * torch.cos(distance * turns)
            first.q_proj.bias[query + width // 2 : query + width] = -weights * torch.sin(distance * turns)
        first.v_proj.weight[:width] = content
        first.o_proj.weight[:, :width] = memory.T * _EMBEDDING * (hidden / width) ** 0.5
        slow = (torch.arange(width) % (width // 2) >= _SLOW).float()[:, None]  # (width, 1)
        for group in range(2):
            key, query = group * width, group * shared * width
            copied = basis[width * (group + 1) : width * (group + 2)]  # (width, hidden)
            second.q_proj.weight[query : query + width] = content * slow * 3.0
            second.k_proj.weight[key : key + width] = memory * slow * 3.0
            second.v_proj.weight[key : key + width] = copied
            second.o_proj.weight[:, query : query + width] = copied.T


def _directions(hidden: int, width: int, draw: torch.Generator) -> Tensor:
    """Random orthonormal rows, (width, hidden)."""
    rows: Tensor = torch.linalg.qr(torch.randn(hidden, width, generator=draw)).Q.T
    return rows


def _quick(half: int) -> Tensor:
    """The key's bias over RoPE's pairs, (half,): mostly on the fast ones, which distinguish neighbours."""
    weights = torch.exp(-torch.arange(half) / 1.5)
    bias: Tensor = 8.0 * (weights / weights.sum()).sqrt()
    return bias
