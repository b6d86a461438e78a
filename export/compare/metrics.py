"""How far logits and answers are from the reference's: at one position, and summed up for a stage."""

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
    """Between two models' logits after the same tokens."""

    max_error: float
    mean_error: float
    same_top: bool
    kl: float


@dataclass(frozen=True)
class Comparison:
    """One prompt. `same`: both gave the same answer; `sure`: the probability of the reference's choice.

    `sure` is None for arguments, of which `finished` says whether the bundle's came to an end.
    """

    distances: tuple[Distance, ...]
    before: float | None  # largest logit error of the graph in float32
    same: bool
    sure: float | None
    finished: bool


def distance(reference: Logits, other: Logits) -> Distance:
    """Of `other` (vocabulary,) from the reference's (vocabulary,)."""
    error = np.abs(reference.astype(np.float64) - other)
    return Distance(
        float(error.max()), float(error.mean()), bool(reference.argmax() == other.argmax()), _kl(reference, other)
    )


def summary(stage: str, adapter: str | None, comparisons: Sequence[Comparison]) -> StageParity:
    """A stage's comparisons, one or more, as the report has them: with four digits, which is more than is meant.

    Raises:
        ParityError: a logit is no finite number: no limit would catch it, as nothing is larger than NaN.

    """
    distances = [each for comparison in comparisons for each in comparison.distances]
    before = [each.before for each in comparisons if each.before is not None]
    if not np.isfinite([*before, *(each.max_error for each in distances)]).all():
        raise ParityError(
            f"adapter {adapter}" if adapter else f"the base, in stage {stage}",
            found="logits that are NaN or infinite",
            expected="finite ones, the reference's too",
            fix="See whether the checkpoint's and the adapter's own weights are finite.",
        )
    choices = [each for each in comparisons if each.sure is not None]
    sure = [each for each in choices if each.sure is not None and each.sure >= SURE]
    arguments = [each for each in comparisons if each.sure is None]
    return StageParity(
        stage=stage,
        adapter=adapter,
        prompts=len(comparisons),
        positions=len(distances),
        before_quantization=_rounded(max(before)) if before else None,
        max_error=_rounded(max(each.max_error for each in distances)),
        mean_error=_mean(distances, lambda each: each.mean_error),
        top1=_mean(distances, lambda each: each.same_top),
        mean_kl=_mean(distances, lambda each: each.kl),
        max_kl=_rounded(max(each.kl for each in distances)),
        choices=len(choices),
        flips=sum(not each.same for each in choices),
        sure=len(sure),
        sure_flips=sum(not each.same for each in sure),
        arguments=len(arguments),
        exact=sum(each.same for each in arguments),
        unfinished=sum(not each.finished for each in arguments),
    )


def _kl(reference: Logits, other: Logits) -> float:
    """Σ p · (log p − log q) in nats; p is the reference's softmax over the vocabulary, q the other's."""
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
