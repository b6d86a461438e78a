"""The order of the samples, and the loss of a batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from dualtune_edge.export.finetune.masks import Sample
from dualtune_edge.toolkit.prompts.prompter import common_prefix

_POOL: Final = 16  # batches whose samples are sorted by length together
_UNLEARNT: Final = -100  # cross_entropy's default


def shared_prefix(samples: Sequence[Sample]) -> tuple[int, ...]:
    """The tokens that all samples begin with, before the last one that predicts a target."""
    limit = min(len(sample.tokens) - sample.learnt for sample in samples) - 1
    return common_prefix([sample.tokens[: max(limit, 0)] for sample in samples])


def batches(samples: Sequence[Sample], size: int, seed: int) -> Iterator[list[Sample]]:
    """Endless batches, every sample once an epoch; samples of like length stand together, the rest is chance.

    An epoch is ceil(len(samples) / size) batches; its order depends on the seed and its number only.
    """
    for epoch in itertools.count():
        rng = Random(f"order {seed} {epoch}")  # noqa: S311 - an order, not a secret
        shuffled = rng.sample(samples, len(samples))
        pools = (shuffled[start : start + size * _POOL] for start in range(0, len(shuffled), size * _POOL))
        alike = [sample for pool in pools for sample in sorted(pool, key=lambda sample: len(sample.tokens))]
        epoch_batches = [alike[start : start + size] for start in range(0, len(alike), size)]
        rng.shuffle(epoch_batches)
        yield from epoch_batches


def learning_rate(step: int, steps: int, *, peak: float, warm_up: int) -> float:
    """Linear to the peak over the warm-up steps, then half a cosine towards zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def summed_loss(model: Any, prefix: tuple[int, ...], batch: Sequence[Sample]) -> Tensor:
    """Negative log-likelihood of the batch's learnt tokens, in nats, summed: a scalar with gradient.

    The prefix runs once for the whole batch: causal attention gives every sample the same keys and values there.
    Rows are padded on the right, where no learnt token looks, so no attention mask is needed.

    Args:
        model: a causal language model of transformers, with its adapter.
        prefix: of `shared_prefix`.
        batch: samples that begin with it.

    """
    rests = [torch.tensor(sample.tokens[len(prefix) :]) for sample in batch]
    tokens = pad_sequence(rests, batch_first=True)  # (batch, tokens)
    targets = torch.full_like(tokens, _UNLEARNT)  # of the position before
    for row, (rest, sample) in enumerate(zip(rests, batch, strict=True)):
        targets[row, len(rest) - sample.learnt - 1 : len(rest) - 1] = rest[-sample.learnt :]
    needed = (targets != _UNLEARNT).any(dim=0).nonzero().squeeze(1)  # positions where some row learns
    past = None
    if prefix:
        past = model(torch.tensor([prefix]), use_cache=True, logits_to_keep=1).past_key_values
        past.batch_repeat_interleave(len(batch))
    logits = model(tokens, past_key_values=past, use_cache=past is not None, logits_to_keep=needed).logits
    learnt = targets[:, needed]  # (batch, needed)
    return cross_entropy(logits.float().flatten(0, 1), learnt.flatten(), reduction="sum")
