"""Distances of logits and answers from the reference's: at one position, and in sum for a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.compare.record import Logits
from dualtune_edge.toolkit.bundle.parity import SURE, StageParity
from dualtune_edge.toolkit.errors import ParityError


@dataclass(frozen=True)
class Distance:
    """Distance between the logits of two models after the same tokens."""

    max_error: float
    mean_error: float
    same_top: bool
    kl: float


@dataclass(frozen=True)
class Comparison:
    """One prompt. `same`: both gave the same answer; `sure`: the probability of the reference's choice.

    `sure` is None for arguments and texts (`text`), of which `finished` says whether the bundle's came to an end.
    """

    distances: tuple[Distance, ...]
    before: float | None  # largest logit error of the graph in float32
    same: bool
    sure: float | None
    finished: bool
    text: bool = False


def distance(reference: Logits, other: Logits) -> Distance:
    """Distance of `other` from the reference, both (vocabulary,)."""
    error = np.abs(reference.astype(np.float64) - other)
    return Distance(
        float(error.max()), float(error.mean()), bool(reference.argmax() == other.argmax()), _kl(reference, other)
    )


def summary(stage: str, adapter: str | None, comparisons: Sequence[Comparison]) -> StageParity:
    """The report of a stage with at least one comparison; figures have four digits, more than are significant.

    Raises:
        ParityError: a logit is not finite. No limit would catch it, as nothing is larger than NaN.

    """
    distances = [distance for comparison in comparisons for distance in comparison.distances]
    before = [comparison.before for comparison in comparisons if comparison.before is not None]
    if not np.isfinite([*before, *(distance.max_error for distance in distances)]).all():
        raise ParityError(
            f"adapter {adapter}" if adapter else f"the base, in stage {stage}",
            found="logits that are NaN or infinite",
            expected="finite logits, of the bundle and of the reference",
            fix="See whether the checkpoint's and the adapter's own weights are finite.",
        )
    choices = [comparison for comparison in comparisons if comparison.sure is not None]
    sure = [choice for choice in choices if choice.sure is not None and choice.sure >= SURE]
    arguments = [comparison for comparison in comparisons if comparison.sure is None and not comparison.text]
    texts = [comparison for comparison in comparisons if comparison.text]
    return StageParity(
        stage=stage,
        adapter=adapter,
        prompts=len(comparisons),
        positions=len(distances),
        before_quantization=_rounded(max(before)) if before else None,
        max_error=_rounded(max(distance.max_error for distance in distances)),
        mean_error=_mean(distances, lambda distance: distance.mean_error),
        top1=_mean(distances, lambda distance: distance.same_top),
        mean_kl=_mean(distances, lambda distance: distance.kl),
        max_kl=_rounded(max(distance.kl for distance in distances)),
        choices=len(choices),
        flips=sum(not choice.same for choice in choices),
        sure=len(sure),
        sure_flips=sum(not choice.same for choice in sure),
        arguments=len(arguments),
        exact=sum(comparison.same for comparison in arguments),
        unfinished=sum(not comparison.finished for comparison in comparisons),
        texts=len(texts),
        same_texts=sum(comparison.same for comparison in texts),
    )


def _kl(reference: Logits, other: Logits) -> float:
    """Σ p · (log p − log q) in nats; p is the softmax of the reference over the vocabulary, q that of the other."""
    p, q = _log_softmax(reference), _log_softmax(other)
    return float(np.sum(np.exp(p) * (p - q)))


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def _mean(distances: Sequence[Distance], of: Callable[[Distance], float]) -> float:
    return _rounded(sum(map(of, distances)) / len(distances))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
