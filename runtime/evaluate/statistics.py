"""Shares with their intervals, and what probabilities are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from dualtune_edge.toolkit.frozen import Frozen

_Z: Final = 1.959964  # of a two-sided interval of 95%
BINS: Final = 10
_STEPS: Final = 10_000  # of a threshold, from 0 to 1


class Share(Frozen):
    """`right` of `of`, and the 95% interval of the share (Wilson's); an empty one is from 0 to 1."""

    right: int
    of: int
    low: float
    high: float

    @classmethod
    def count(cls, states: Sequence[bool]) -> Share:
        """Of so many states."""
        right, of = sum(states), len(states)
        if not of:
            return cls(right=0, of=0, low=0.0, high=1.0)
        share, z = right / of, _Z * _Z / of
        middle = (share + z / 2) / (1 + z)
        half = _Z * math.sqrt(share * (1 - share) / of + z / (4 * of)) / (1 + z)
        return cls(right=right, of=of, low=round(max(0.0, middle - half), 6), high=round(min(1.0, middle + half), 6))

    @property
    def share(self) -> float:
        """0 for none of none."""
        return self.right / self.of if self.of else 0.0


class Difference(Frozen):
    """Ours less the other's share of right answers to the same turns, with the 95% interval of paired shares."""

    difference: float
    low: float
    high: float
    only_ours: int  # right with us, wrong there
    only_theirs: int

    @classmethod
    def paired(cls, ours: Sequence[bool], theirs: Sequence[bool]) -> Difference:
        """Of equally many states, one or more."""
        count = len(ours)
        only_ours = sum(one and not other for one, other in zip(ours, theirs, strict=True))
        only_theirs = sum(other and not one for one, other in zip(ours, theirs, strict=True))
        gap = (only_ours - only_theirs) / count
        half = _Z * math.sqrt(max(0.0, only_ours + only_theirs - count * gap * gap)) / count
        return cls(
            difference=gap,
            low=round(max(-1.0, gap - half), 6),
            high=round(min(1.0, gap + half), 6),
            only_ours=only_ours,
            only_theirs=only_theirs,
        )


class Bin(Frozen):
    """Answers whose probability is from `low` to below `high` (the last bin holds 1.0 too)."""

    low: float
    high: float
    probability: float  # their mean
    right: Share


class Threshold(Frozen):
    """The calls that are left where less probable ones are answered `unsure`."""

    min_probability: float  # a multiple of 0.0001
    kept: Share  # right ones among the calls that are left
    of: int  # calls without a threshold


class Calibration(Frozen):
    """What the probabilities of whole answers are worth.

    `error` is the mean distance between probability and share of right answers over the bins, weighed by their answers
    (the expected calibration error). `suggested` is the lowest threshold from which on the calls that are left are
    right as often as `aim`; null where none is.
    """

    bins: tuple[Bin, ...]
    error: float
    aim: float
    suggested: Threshold | None


def calibrate(pairs: Sequence[tuple[float, bool]], calls: Sequence[bool], aim: float) -> Calibration:
    """Of answers, each with its probability and whether it is right.

    `calls` says which of them call a tool: only these can be held back.
    """
    bins = []
    for number in range(BINS):
        held = [pair for pair in pairs if min(int(pair[0] * BINS), BINS - 1) == number]
        if held:
            mean = sum(probability for probability, _ in held) / len(held)
            right = Share.count([right for _, right in held])
            bins.append(Bin(low=number / BINS, high=(number + 1) / BINS, probability=round(mean, 6), right=right))
    error = sum(abs(entry.probability - entry.right.share) * entry.right.of for entry in bins) / max(1, len(pairs))
    made = [pair for pair, called in zip(pairs, calls, strict=True) if called]
    return Calibration(bins=tuple(bins), error=round(error, 6), aim=aim, suggested=_threshold(made, aim))


def thresholds(made: Sequence[tuple[float, bool]]) -> list[Threshold]:
    """For each probability of a call, rounded down and from the highest, what is left with it as the threshold."""
    ordered = sorted(made, key=lambda pair: -pair[0])
    found, number = list[Threshold](), 0
    for threshold in sorted({_rounded_down(probability) for probability, _ in made}, reverse=True):
        while number < len(ordered) and ordered[number][0] >= threshold:
            number += 1
        kept = Share.count([right for _, right in ordered[:number]])
        found.append(Threshold(min_probability=threshold, kept=kept, of=len(ordered)))
    return found


def _threshold(made: Sequence[tuple[float, bool]], aim: float) -> Threshold | None:
    """The last of those that reach the aim."""
    reached = [threshold for threshold in thresholds(made) if threshold.kept.share >= aim]
    return reached[-1] if reached else None


def _rounded_down(probability: float) -> float:
    """To a multiple of 0.0001 that is no larger, as a report shows it."""
    steps = math.floor(probability * _STEPS)
    return (steps if steps / _STEPS <= probability else steps - 1) / _STEPS
