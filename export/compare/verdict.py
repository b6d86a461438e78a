"""Decides whether the measured differences are within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dualtune_edge.toolkit.bundle.parity import EXACT, ParityLimits, StageParity
from dualtune_edge.toolkit.errors import ParityError


@dataclass(frozen=True)
class Breach:
    """The first limit that a report exceeds, and the number of stages that exceed one."""

    where: str
    found: str
    expected: str
    fix: str
    stages: int


def refuse_beyond(stages: Sequence[StageParity], limits: ParityLimits, *, tried: int = 0) -> None:
    """Refuse stages that are further from the reference than the limits allow.

    Args:
        stages: what was measured.
        limits: what is allowed.
        tried: the number of recipes that were tried, of which this is the best; 0: there was no choice.

    Raises:
        ParityError: with the adapter of the first such stage, and the metric.

    """
    breach = first_breach(stages, limits)
    if breach is None:
        return
    others = breach.stages - 1
    excess = f"{breach.found}, and {others} more stages beyond a limit" if others else breach.found
    if not tried or inexact(stages):
        raise ParityError(breach.where, found=excess, expected=breach.expected, fix=breach.fix)
    raise ParityError(
        breach.where,
        found=f"{excess}, by the best of {tried} recipes",
        expected=breach.expected,
        fix="Allow more in the spec, under `parity: {limits: …}`.",
    )


def first_breach(stages: Sequence[StageParity], limits: ParityLimits) -> Breach | None:
    """None: all stages are within the limits."""
    breaches = [(stage, *breach) for stage in stages for breach in _breaches(stage, limits)]
    if not breaches:
        return None
    stage, found, expected, fix = breaches[0]
    where = f"adapter {stage.adapter}" if stage.adapter else f"the base, in stage {stage.stage}"
    return Breach(where, found, expected, fix, len({breach[0].stage for breach in breaches}))


def inexact(stages: Sequence[StageParity]) -> bool:
    """Whether a graph differs from the model before quantization, which no recipe corrects."""
    return any(_is_inexact(stage) for stage in stages)


def _is_inexact(stage: StageParity) -> bool:
    return stage.before_quantization is not None and stage.before_quantization > EXACT


def _breaches(stage: StageParity, limits: ParityLimits) -> Iterator[tuple[str, str, str]]:
    """(found, expected, fix) for each limit that the stage exceeds."""
    if _is_inexact(stage):
        yield (
            f"logits {stage.before_quantization:.2g} off before quantization",
            f"at most {EXACT:g}, which is float32's rounding",
            "The graph is not the model: report it with the adapter's config and the versions of the packages.",
        )
    if stage.mean_kl > limits.max_kl:
        yield f"a KL divergence of {stage.mean_kl:g} nats", f"at most {limits.max_kl:g}", _more_care("max_kl")
    if stage.sure_flips > limits.max_sure_flips * stage.sure:
        found = f"{stage.sure_flips} of {stage.sure} sure choices that differ"
        yield found, f"at most {limits.max_sure_flips:.0%}", _more_care("max_sure_flips")
    if stage.top1 < limits.min_top1:
        yield f"a top-1 agreement of {stage.top1:.1%}", f"at least {limits.min_top1:.1%}", _more_care("min_top1")
    if stage.exact < limits.min_exact * stage.arguments:
        found = f"{stage.exact} of {stage.arguments} arguments equal to PEFT's"
        yield found, f"at least {limits.min_exact:.1%}", _more_care("min_exact")


def _more_care(limit: str) -> str:
    return (
        "Quantize with more care (`quantization: auto` tries how much it takes), or allow more in the spec: "
        f"`parity: {{limits: {{{limit}: …}}}}`."
    )
