import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.compare.metrics import Comparison, Distance, distance, summary
from dualtune_edge.export.compare.table import table
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.errors import ParityError

logits = st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4).map(lambda row: np.array(row, dtype=np.float32))


def test_the_divergence_is_that_of_the_softmaxes() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    found = distance(np.log(p).astype(np.float32) + 3, np.log(q).astype(np.float32) - 1)
    assert found.kl == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(0.5), abs=1e-6)
    assert not found.same_top


def test_errors_are_absolute_differences() -> None:
    found = distance(np.array([0, 1, 5, 2], dtype=np.float32), np.array([0, 1, 3, 4], dtype=np.float32))
    assert (found.max_error, found.mean_error, found.same_top) == (2, 1, False)


@given(logits, logits)
def test_a_divergence_is_never_negative_and_none_from_itself(one: np.ndarray, other: np.ndarray) -> None:
    assert distance(one, other).kl >= -1e-9
    assert distance(one, one) == Distance(0.0, 0.0, same_top=True, kl=0.0)


def test_a_stage_is_summed_up_over_its_positions_and_prompts() -> None:
    near, far = Distance(0.5, 0.25, same_top=True, kl=0.1), Distance(2, 1, same_top=False, kl=0.4)
    stage = summary(
        "selection.git",
        "selection.git",
        [
            Comparison((near, near), before=1e-5, same=True, sure=0.99, finished=True),
            Comparison((near, far), before=3e-5, same=False, sure=0.95, finished=True),
            Comparison((), before=None, same=False, sure=0.5, finished=True),
        ],
    )
    assert (stage.prompts, stage.positions, stage.choices, stage.flips) == (3, 4, 3, 2)
    assert (stage.sure, stage.sure_flips, stage.arguments, stage.exact) == (2, 1, 0, 0)
    assert (stage.max_error, stage.mean_error, stage.top1) == (2, 0.4375, 0.75)
    assert (stage.mean_kl, stage.max_kl, stage.before_quantization) == (0.175, 0.4, 3e-5)


def test_arguments_are_counted_apart() -> None:
    near = Distance(0.5, 0.25, same_top=True, kl=0.1)
    done = Comparison((near,), before=None, same=True, sure=None, finished=True)
    stage = summary("a", None, [done, Comparison((near,), before=None, same=False, sure=None, finished=False)])
    assert (stage.arguments, stage.exact, stage.unfinished, stage.choices) == (2, 1, 1, 0)
    assert stage.before_quantization is None


@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_logits_that_are_no_numbers_are_refused_wherever_they_stand(odd: int, *, before: bool) -> None:
    logits = np.array([0.0, 1.0, 2.0], dtype=np.float32)
    broken = np.array([0.0, math.nan, 2.0], dtype=np.float32)
    comparisons = [
        Comparison(
            (distance(logits, broken if index == odd and not before else logits),),
            math.nan if index == odd and before else 1e-6,
            same=True,
            sure=0.9,
            finished=True,
        )
        for index in range(3)
    ]
    with pytest.raises(ParityError, match="found logits that are NaN"):
        summary("selection.git", "selection.git", comparisons)


def test_texts_count_apart_from_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # a table, and not a line for each cell
    near = Distance(max_error=1.0, mean_error=0.5, same_top=True, kl=0.1)
    text = Comparison((near,), before=None, same=True, sure=None, finished=False, text=True)
    answer = summary("answer", "answer", [text, replace(text, same=False)])
    assert (answer.texts, answer.same_texts, answer.arguments, answer.choices, answer.unfinished) == (2, 1, 0, 0, 2)
    assert "1 of 2 answers the same" in ParityReport(stages=(answer,)).line()
    shown = table(ParityReport(stages=(answer,)))
    assert "answers" in shown.splitlines()[0]
    assert "1/2" in shown
    other = summary("a", None, [replace(text, text=False)])
    assert "texts" not in other.model_dump()
    assert "answers" not in table(ParityReport(stages=(other,))).splitlines()[0]
