"""Intervals, calibration and thresholds, against values worked out elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.runtime.evaluate.statistics import Difference, Share, calibrate, thresholds

PROBABILITIES = st.floats(0, 1) | st.floats(0.9997, 1)  # a sure model's lie within a ten-thousandth
PAIRS = st.lists(st.tuples(PROBABILITIES, st.booleans()), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),  # as R's prop.test(correct = FALSE) has them
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_a_share_has_wilsons_interval(right: int, of: int, low: float, high: float) -> None:
    share = Share.count([True] * right + [False] * (of - right))
    assert (share.right, share.of, share.share) == (right, of, right / of)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_nothing_counted_says_nothing() -> None:
    assert Share.count([]) == Share(right=0, of=0, low=0.0, high=1.0)


def test_a_difference_is_of_the_same_turns() -> None:
    ours, theirs = [True] * 8 + [False] * 2, [True] * 4 + [False] * 5 + [True]
    gap = Difference.paired(ours, theirs)
    assert (gap.only_ours, gap.only_theirs) == (4, 1)
    assert gap.difference == pytest.approx(0.3)
    assert (gap.low, gap.high) == (pytest.approx(0.3 - 0.3968, abs=1e-4), pytest.approx(0.3 + 0.3968, abs=1e-4))


def test_equal_sides_differ_by_nothing() -> None:
    gap = Difference.paired([True, False], [True, False])
    assert (gap.difference, gap.low, gap.high) == (0, 0, 0)


def test_probabilities_that_are_right_as_often_have_no_error() -> None:
    pairs = [(0.75, number < 75) for number in range(100)]
    found = calibrate(pairs, [True] * 100, 0.9)
    assert found.error == 0
    (entry,) = found.bins
    assert (entry.low, entry.high, entry.probability, entry.right.of) == (0.7, 0.8, 0.75, 100)
    assert found.suggested is None


def test_the_error_is_weighed_by_the_answers_of_each_bin() -> None:
    found = calibrate([(1.0, True)] * 3 + [(0.05, True)], [True] * 4, 0.5)
    assert found.error == pytest.approx(0.95 / 4)
    assert [(entry.low, entry.high) for entry in found.bins] == [(0.0, 0.1), (0.9, 1.0)]


def test_the_lowest_threshold_that_reaches_the_aim_is_suggested() -> None:
    pairs = [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, True), (0.4, False)]
    found = calibrate(pairs, [True] * 6, 0.8).suggested
    assert found
    assert (found.min_probability, found.kept.right, found.kept.of, found.of) == (0.5, 4, 5, 6)


def test_only_calls_are_held_back() -> None:
    found = calibrate([(0.9, True), (0.2, False)], [True, False], 1.0).suggested
    assert found
    assert (found.kept.of, found.of) == (1, 1)


@given(PAIRS, st.floats(0, 1))
def test_a_suggested_threshold_keeps_what_it_says(pairs: list[tuple[float, bool]], aim: float) -> None:
    found = calibrate(pairs, [True] * len(pairs), aim).suggested
    if found is None:
        assert all(point.kept.share < aim for point in thresholds(pairs))
        return
    assert found.kept.share >= aim
    exact = [right for probability, right in pairs if probability >= found.min_probability]
    assert (sum(exact), len(exact)) == (found.kept.right, found.kept.of)


@given(PAIRS)
def test_thresholds_fall_and_the_last_keeps_all(pairs: list[tuple[float, bool]]) -> None:
    found = thresholds(pairs)
    probabilities = [point.min_probability for point in found]
    assert probabilities == sorted(set(probabilities), reverse=True)
    for point in found:
        assert point.kept.of == sum(probability >= point.min_probability for probability, _ in pairs)
    assert found[-1].kept.of == len(pairs)
