import pytest

from dualtune_edge.export.compare.verdict import first_breach, refuse_beyond
from dualtune_edge.toolkit.bundle.parity import ParityLimits, StageParity
from dualtune_edge.toolkit.errors import ParityError

GOOD = StageParity(
    stage="selection.git", adapter="selection.git", prompts=4, positions=8, before_quantization=1e-5, max_error=2.0,
    mean_error=0.4, top1=0.75, mean_kl=0.2, max_kl=1.0, choices=4, flips=1, sure=2, sure_flips=0, arguments=0, exact=0,
    unfinished=0,
)  # fmt: skip
ARGUMENTS = GOOD.model_copy(update={"choices": 0, "flips": 0, "sure": 0, "arguments": 4, "exact": 3})


def refused(stage: StageParity, limits: ParityLimits) -> ParityError:
    with pytest.raises(ParityError) as caught:
        refuse_beyond([GOOD, stage], limits)
    return caught.value


def test_what_is_at_the_limits_passes() -> None:
    limits = ParityLimits(max_kl=0.2, max_sure_flips=0, min_top1=0.75, min_exact=0.75)
    refuse_beyond([GOOD, ARGUMENTS, GOOD.model_copy(update={"before_quantization": None})], limits)


@pytest.mark.parametrize(
    ("stage", "limits", "found", "expected"),
    [
        (GOOD.model_copy(update={"before_quantization": 1.1e-3}), ParityLimits(), "0.0011 off before", "0.001"),
        (GOOD.model_copy(update={"mean_kl": 1.5}), ParityLimits(), "KL divergence of 1.5 nats", "at most 1"),
        (GOOD.model_copy(update={"sure_flips": 1}), ParityLimits(), "1 of 2 sure choices", "at most 0%"),
        (GOOD.model_copy(update={"top1": 0.5}), ParityLimits(min_top1=0.6), "top-1 agreement of 50.0%", "60.0%"),
        (ARGUMENTS.model_copy(update={"exact": 2}), ParityLimits(min_exact=0.7), "2 of 4 arguments", "70.0%"),
    ],
)
def test_each_limit_is_enforced_and_named(stage: StageParity, limits: ParityLimits, found: str, expected: str) -> None:
    error = refused(stage.model_copy(update={"adapter": "selection.files"}), limits)
    assert error.where == "adapter selection.files"
    assert found in error.found
    assert expected in error.expected


def test_the_base_and_further_stages_are_named() -> None:
    wrong = {"adapter": None, "stage": "toolset", "mean_kl": 9.0}
    with pytest.raises(ParityError, match="the base, in stage toolset") as caught:
        refuse_beyond([GOOD.model_copy(update=wrong), ARGUMENTS.model_copy(update={"mean_kl": 2.0})], ParityLimits())
    assert "and 1 more stages" in caught.value.found


def test_the_fix_says_what_to_set() -> None:
    assert "`parity: {limits: {max_kl: …}}`" in refused(GOOD.model_copy(update={"mean_kl": 3.0}), ParityLimits()).fix


def test_the_best_of_several_recipes_is_told_as_such() -> None:
    bad = GOOD.model_copy(update={"mean_kl": 1.5})
    with pytest.raises(ParityError, match=r"1.5 nats, by the best of 7 recipes;.*Allow more in the spec"):
        refuse_beyond([bad], ParityLimits(), tried=7)


def test_the_first_breach_counts_the_stages() -> None:
    bad = GOOD.model_copy(update={"stage": "bad", "mean_kl": 1.5, "top1": 0.1})
    breach = first_breach([GOOD, bad], ParityLimits(min_top1=0.5))
    assert breach is not None
    assert (breach.where, breach.stages) == ("adapter selection.git", 1)
    assert first_breach([GOOD], ParityLimits()) is None
