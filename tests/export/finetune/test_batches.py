from __future__ import annotations

import itertools
from collections import Counter
from random import Random
from typing import Any

import pytest
import torch

from dualtune_edge.export.finetune.batches import (
    base_state,
    batches,
    learning_rate,
    micro_batches,
    shared_prefix,
    start_of,
    summed_loss,
)
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.samples.masks import Sample

SAMPLES = [Sample((1, 2, 3, 4, *range(9, 9 + extra), 40 + extra, 50), learnt=2) for extra in range(1, 6)]


def test_the_shared_prefix_changes_no_loss_and_no_gradient(base: Base, settings: Any) -> None:
    gradients = []
    torch.manual_seed(0)
    with base.adapted(settings()) as adapted:
        parameters = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
        with torch.no_grad():
            for weight in parameters:
                weight.fill_(0.01)
        for prefix in ((), shared_prefix(SAMPLES)):
            loss = summed_loss(adapted.get_base_model(), prefix, SAMPLES)
            gradients.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
        tokens = [torch.tensor([sample.tokens]) for sample in SAMPLES]
        alone = sum(-adapted(row).logits.log_softmax(-1)[0, [-3, -2], row[0, -2:]].sum() for row in tokens)
    for whole, shared in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0][0], alone, rtol=1e-4, atol=1e-5)


INVOCATION = (60, 61)
ACTIVATED = [
    Sample((1, 2, 3, 60, 61, 4, 60, 61, 9, 50), learnt=2),
    Sample((1, 2, 3, 60, 61, 4, 5, 6, 60, 61, 40, 41, 50), learnt=3),
    Sample((1, 2, 3, 60, 61, 4, 60, 61, 60, 61), learnt=2),  # what is learnt does not count
]


def test_of_an_activated_adapter_each_sample_is_learnt_from_its_own_invocation_on(
    base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = []
    with base.adapted(settings(), INVOCATION) as adapted:
        parameters = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
        with torch.no_grad():
            for weight in parameters:
                weight.fill_(0.01)
        for prefix in ((), (1, 2), shared_prefix(ACTIVATED, INVOCATION)):
            state = base_state(adapted, prefix, INVOCATION)
            assert (state is None) == (not prefix)
            for held in (None, state, state):  # a state serves more than one batch
                loss = summed_loss(adapted, prefix, ACTIVATED, INVOCATION, held)
                gradients.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
        monkeypatch.setattr("dualtune_edge.export.finetune.batches._splits", lambda _model: False)
        for prefix in ((), (1, 2)):
            loss = summed_loss(adapted, prefix, ACTIVATED, INVOCATION)
            gradients.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
        rows = [
            (torch.tensor([sample.tokens]), sample.learnt, len(sample.tokens) - start_of(sample, INVOCATION))
            for sample in ACTIVATED
        ]
        logits = [adapted(row, alora_offsets=[offset]).logits.log_softmax(-1)[0] for row, _, offset in rows]
        alone = sum(
            -found[range(-learnt - 1, -1), row[0, -learnt:]].sum()
            for found, (row, learnt, _) in zip(logits, rows, strict=True)
        )
        expected = [alone.detach(), *torch.autograd.grad(alone, parameters)]
    for found in gradients:
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_padding_within_a_sample_stands_in_no_sliding_window_and_in_no_checkpointed_pass(
    base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with base.adapted(settings(), INVOCATION) as adapted:
        assert base_state(adapted, (1, 2), INVOCATION) is not None
        assert base_state(adapted, (1, 2), None) is None
        with monkeypatch.context() as patch:
            patch.setattr(adapted.config, "layer_types", ["full_attention", "sliding_attention"])
            assert base_state(adapted, (1, 2), INVOCATION) is None
    with base.adapted(settings(gradient_checkpointing=True), INVOCATION) as adapted:
        assert base_state(adapted, (1, 2), INVOCATION) is None


def test_of_an_activated_adapter_the_prefix_ends_before_the_first_invocation_that_counts() -> None:
    assert shared_prefix(ACTIVATED, INVOCATION) == (1, 2, 3, 60, 61, 4)
    assert shared_prefix(ACTIVATED[:1], INVOCATION) == (1, 2, 3, 60, 61, 4)
    assert [start_of(sample, INVOCATION) for sample in ACTIVATED] == [6, 8, 6]
    with pytest.raises(ValueError, match="without the invocation"):
        start_of(Sample((1, 60, 61), learnt=2), INVOCATION)


def test_the_shared_prefix_ends_before_what_predicts_a_target() -> None:
    assert shared_prefix(SAMPLES) == (1, 2, 3, 4)
    assert shared_prefix([Sample((1, 2, 3), 2), Sample((1, 2, 3, 4), 2)]) == ()
    assert shared_prefix([Sample((1, 2, 3), 1)]) == (1,)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    endless = batches(SAMPLES, size=2, seed=3)
    epochs = [[next(endless) for _ in range(3)] for _ in range(4)]
    flat = [[sample for batch in epoch for sample in batch] for epoch in epochs]
    assert all(sorted(epoch, key=len_of) == SAMPLES for epoch in flat)
    assert len({tuple(epoch) for epoch in flat}) > 1


def len_of(sample: Sample) -> int:
    return len(sample.tokens)


def test_the_learning_rate_rises_linearly_and_falls_by_half_a_cosine() -> None:
    rates = [learning_rate(step, 10, peak=2.0, warm_up=2) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_batch_mixes_kinds_and_lengths(share: float) -> None:
    """Samples of one kind have one length: of 480, as of any other number, no batch may be all of one."""
    count = int(480 * share)
    short = [Sample((*range(20), 1), learnt=1) for _ in range(480 - count)]
    long = [Sample((*range(90), 2), learnt=1) for _ in range(count)]
    kinds = [
        Counter(sample.tokens[-1] for sample in batch) for batch in itertools.islice(batches(short + long, 16, 0), 120)
    ]
    assert all(kind.total() == 16 for kind in kinds)
    mean = 16 * share
    assert all(0 < kind[2] < 16 for kind in kinds)
    deviation = (sum((kind[2] - mean) ** 2 for kind in kinds) / len(kinds)) ** 0.5
    assert deviation < 1.2 * (16 * share * (1 - share)) ** 0.5  # that of chance


@pytest.mark.parametrize("most", [None, 1, 3, 100])
@pytest.mark.parametrize("prefix", [0, 5, 400])
def test_micro_batches_hold_every_sample_once_and_compute_least(prefix: int, most: int | None) -> None:
    rng = Random(prefix)  # noqa: S311 - lengths, not secrets
    batch = [Sample(tuple(range(rng.randint(prefix + 2, prefix + 300))), 1) for _ in range(6)]
    parts = micro_batches(batch, prefix, most)
    assert sorted(sample.tokens for part in parts for sample in part) == sorted(sample.tokens for sample in batch)
    assert all(len(part) <= (most or 6) for part in parts)
    ordered = sorted(batch, key=len_of)
    ways = [
        [ordered[start:stop] for start, stop in itertools.pairwise([0, *cuts, 6])]
        for count in range(6)
        for cuts in itertools.combinations(range(1, 6), count)
    ]
    allowed = [way for way in ways if max(map(len, way)) <= (most or 6)]
    assert cost(parts, prefix) == min(cost(way, prefix) for way in allowed)


def cost(parts: list[list[Sample]], prefix: int) -> int:
    """Tokens, where each part's forward pass counts as 32 more."""
    return sum(32 + prefix + len(part) * (max(map(len_of, part)) - prefix) for part in parts)


def test_micro_batches_change_no_gradient(base: Base, settings: Any) -> None:
    prefix = shared_prefix(SAMPLES)
    batch = [*SAMPLES, Sample((1, 2, 3, 4, *range(9, 200), 50), learnt=1)]
    gradients = []
    torch.manual_seed(0)
    with base.adapted(settings()) as adapted:
        weights = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
        parts = micro_batches(batch, len(prefix), None)
        assert len(parts) > 1
        for way in ([batch], parts):
            loss = sum(summed_loss(adapted.get_base_model(), prefix, part) for part in way)
            gradients.append(torch.autograd.grad(loss, weights))
    for whole, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-3, atol=1e-4)
