"""The order of the samples, and the loss of a batch."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from dualtune_edge.export.base.architectures import all_layers_slide
from dualtune_edge.export.finetune.loading.sharding import is_sharded
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.prompts.prompter import common_prefix

_PASS: Final = 32  # tokens that take as long as one more forward pass: it reads all weights again
_UNLEARNT: Final = -100  # cross_entropy's default


def shared_prefix(samples: Sequence[Sample], invocation: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The tokens that all samples begin with, before the last one that predicts a target.

    `invocation`: of an activated adapter, which begins behind them.
    """
    limit = min(len(sample.tokens) - sample.learnt for sample in samples) - 1
    if invocation:
        limit = min(limit, *(start_of(sample, invocation) for sample in samples))
    return common_prefix([sample.tokens[: max(limit, 0)] for sample in samples])


def batches(samples: Sequence[Sample], size: int, seed: int) -> Iterator[list[Sample]]:
    """Endless batches in random order, every sample once an epoch.

    Chance alone decides which samples share a batch. Batches of samples of like length would be quicker, but long
    samples are later turns, and those mostly call no tool: each update would pull towards one answer.

    An epoch is ceil(len(samples) / size) batches; its order depends on the seed and its number only.
    """
    for epoch in itertools.count():
        rng = Random(f"order {seed} {epoch}")  # noqa: S311 - an order, not a secret
        shuffled = rng.sample(samples, len(samples))
        yield from (shuffled[start : start + size] for start in range(0, len(shuffled), size))


def micro_batches(batch: Sequence[Sample], prefix: int, most: int | None) -> list[list[Sample]]:
    """The batch in parts of samples of like length, so that the fewest tokens are computed.

    A part costs the shared prefix once, and for each of its samples as many tokens as its longest one has.

    Args:
        batch: the samples of one step.
        prefix: the number of tokens that all samples begin with.
        most: the largest number of samples in a part; None: the whole batch.

    """
    ordered = sorted(batch, key=lambda sample: len(sample.tokens))
    cuts = [(0, 0)]  # of the first n samples: (cost of their parts, where the last part starts)
    for stop in range(1, len(ordered) + 1):
        longest = len(ordered[stop - 1].tokens) - prefix
        starts = range(max(0, stop - (most or stop)), stop)
        cuts.append(min((cuts[start][0] + _cost(prefix, stop - start, longest), start) for start in starts))
    parts: list[list[Sample]] = []
    stop = len(ordered)
    while stop:
        start = cuts[stop][1]
        parts.append(ordered[start:stop])
        stop = start
    return parts[::-1]


def part_cost(part: Sequence[Sample], prefix: int) -> int:
    """Tokens that a part of a batch computes, with those that take as long as its forward pass by itself."""
    return _cost(prefix, len(part), max(len(sample.tokens) for sample in part) - prefix)


def _cost(prefix: int, rows: int, longest: int) -> int:
    return _PASS + prefix + rows * longest


def learning_rate(step: int, steps: int, *, peak: float, warm_up: int) -> float:
    """Linear to the peak over the warm-up steps, then half a cosine towards zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def start_of(sample: Sample, invocation: tuple[int, ...]) -> int:
    """The first token that an activated adapter acts on: the last invocation before what is learnt, as on the device.

    Raises:
        ValueError: there is none.

    """
    given = sample.tokens[: len(sample.tokens) - sample.learnt]
    start = base_part(given, invocation)
    if start == len(given):
        raise ValueError("a sample without the invocation: nothing of it can be learnt")
    return start


def summed_loss(
    model: Any,
    prefix: tuple[int, ...],
    batch: Sequence[Sample],
    invocation: tuple[int, ...] | None = None,
    state: Any = None,
) -> Tensor:
    """Negative log-likelihood of the batch's learnt tokens, in nats, summed: a scalar with gradient.

    Args: as for `learnt_logits`.

    """
    logits, learnt = learnt_logits(model, prefix, batch, invocation, state)
    return cross_entropy(logits.flatten(0, 1), learnt.flatten(), reduction="sum")


def right_and_loss(
    model: Any,
    prefix: tuple[int, ...],
    batch: Sequence[Sample],
    invocation: tuple[int, ...] | None = None,
    state: Any = None,
) -> tuple[int, float]:
    """The number of samples whose learnt tokens are each the most probable one, and `summed_loss`.

    Args: as for `learnt_logits`.

    """
    logits, learnt = learnt_logits(model, prefix, batch, invocation, state)
    right = (logits.argmax(dim=-1) == learnt) | (learnt == _UNLEARNT)  # (batch, needed)
    loss = cross_entropy(logits.flatten(0, 1), learnt.flatten(), reduction="sum")
    return int(right.all(dim=1).sum()), float(loss)


def learnt_logits(
    model: Any,
    prefix: tuple[int, ...],
    batch: Sequence[Sample],
    invocation: tuple[int, ...] | None = None,
    state: Any = None,
) -> tuple[Tensor, Tensor]:
    """Logits (batch, needed, vocabulary) where some row learns, and the tokens that are right there (batch, needed).

    The prefix runs once for the whole batch: causal attention gives every sample the same keys and values there.
    Rows are padded on the right, where no learnt token looks, so no attention mask is needed.

    Args:
        model: a causal language model of transformers, with its adapter.
        prefix: of `shared_prefix`.
        batch: samples that begin with it.
        invocation: of an activated adapter; the model is then PEFT's.
        state: of `base_state`; None: the prefix is computed here.

    """
    if invocation and _splits(model):
        return _activated_logits(model, prefix, batch, invocation, state)
    rests = [torch.tensor(sample.tokens[len(prefix) :], device=model.device) for sample in batch]
    tokens, targets, needed = _padded(rests, batch)
    past = zero = None
    if prefix:
        base = {"alora_offsets": [0]} if invocation else {}
        first = torch.tensor([prefix], device=model.device)
        output = model(input_ids=first, use_cache=True, logits_to_keep=1, **base)
        past = output.past_key_values
        past.batch_repeat_interleave(len(batch))
        # A sharded layer is gathered again where its output gets a gradient, and keys and values are none.
        zero = 0.0 * output.logits.float().sum() if is_sharded(model) else None
    active = {}
    if invocation:  # the number of last tokens of each row, its padding counted in
        end = len(prefix) + tokens.shape[1]
        active = {"alora_offsets": [end - start_of(sample, invocation) for sample in batch]}
    logits = model(
        input_ids=tokens, past_key_values=past, use_cache=past is not None, logits_to_keep=needed, **active
    ).logits
    return logits.float() if zero is None else logits.float() + zero, targets[:, needed]


def base_state(model: Any, prefix: tuple[int, ...], invocation: tuple[int, ...] | None) -> Any:
    """Keys and values of the prefix of an activated adapter, which the frozen base makes: they stay the same in a run.

    None: there are none that stay, and each batch computes them.
    """
    if not (prefix and invocation and _splits(model)):
        return None
    first = torch.tensor([prefix], device=model.device)
    with torch.no_grad():
        return model(input_ids=first, use_cache=True, logits_to_keep=1, alora_offsets=[0]).past_key_values


def _activated_logits(
    model: Any, prefix: tuple[int, ...], batch: Sequence[Sample], invocation: tuple[int, ...], state: Any
) -> tuple[Tensor, Tensor]:
    """`learnt_logits` of an activated adapter: what stands before its invocation has no gradient, so it needs no graph.

    The base's state of each row is padded behind its context. A mask hides the padding, and positions go on without it.
    """
    starts = [start_of(sample, invocation) for sample in batch]
    contexts = [sample.tokens[len(prefix) : start] for sample, start in zip(batch, starts, strict=True)]
    past = copy.deepcopy(state) if state is not None else base_state(model, prefix, invocation)
    with torch.no_grad():
        if past is not None:
            past.batch_repeat_interleave(len(batch))
        if any(contexts):
            rows = [torch.tensor(context, dtype=torch.long, device=model.device) for context in contexts]
            before = pad_sequence(rows, batch_first=True)  # (batch, context)
            inactive = {"alora_offsets": [0] * len(batch)}
            past = model(
                input_ids=before, past_key_values=past, use_cache=True, logits_to_keep=1, **inactive
            ).past_key_values
    rests = [
        torch.tensor(sample.tokens[start:], device=model.device) for sample, start in zip(batch, starts, strict=True)
    ]
    tokens, targets, needed = _padded(rests, batch)  # (batch, tokens)
    first = torch.tensor(starts, device=model.device)[:, None]
    positions = first + torch.arange(tokens.shape[1], device=model.device)
    held = len(prefix) + max(map(len, contexts))
    seen = torch.arange(held, device=model.device) < first  # (batch, held)
    logits = model(
        input_ids=tokens,
        attention_mask=torch.cat([seen, torch.ones_like(tokens, dtype=torch.bool)], dim=1).long(),
        position_ids=positions,
        past_key_values=past,
        use_cache=past is not None,
        logits_to_keep=needed,
        alora_offsets=[tokens.shape[1]] * len(batch),
    ).logits
    return logits.float(), targets[:, needed]


def _padded(rests: Sequence[Tensor], batch: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """The rows' ends, padded (batch, tokens), the target behind each token, and the positions where some row learns."""
    tokens = pad_sequence(list(rests), batch_first=True)
    targets = torch.full_like(tokens, _UNLEARNT)  # of the position before
    for row, (rest, sample) in enumerate(zip(rests, batch, strict=True)):
        targets[row, len(rest) - sample.learnt - 1 : len(rest) - 1] = rest[-sample.learnt :]
    return tokens, targets, (targets != _UNLEARNT).any(dim=0).nonzero().squeeze(1)


def _splits(model: Any) -> bool:
    """Whether a sample can be computed in two passes, with padding in between.

    A sliding window would count the padding as tokens, gradient checkpointing keeps no state of the first pass, and of
    a sharded base all processes have to make the same passes, whatever their samples.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    slides = all_layers_slide(config) or any(kind != "full_attention" for kind in kinds)
    if slides or is_sharded(model):
        return False
    return not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
