"""Whether the measured differences are within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dualtune_edge.toolkit.errors import ParityError
from dualtune_edge.toolkit.parity import EXACT, ParityLimits, StageParity


def refuse_beyond(stages: Sequence[StageParity], limits: ParityLimits) -> None:
    """Refuse stages that are further from the reference than the limits allow.

    Raises:
        ParityError: names the first stage's adapter, the metric, what was found and what was expected.

    """
    breaches = [(stage, *breach) for stage in stages for breach in _breaches(stage, limits)]
    if not breaches:
        return
    stage, found, expected, fix = breaches[0]
    others = len({each.stage for each, *_ in breaches} - {stage.stage})
    raise ParityError(
        f"adapter {stage.adapter}" if stage.adapter else f"the base, in stage {stage.stage}",
        found=f"{found}, and {others} more stages beyond a limit" if others else found,
        expected=expected,
        fix=fix,
    )


def _breaches(stage: StageParity, limits: ParityLimits) -> Iterator[tuple[str, str, str]]:
    """(found, expected, fix) for each limit that the stage exceeds."""
    before = stage.before_quantization
    if before is not None and before > EXACT:
        yield (
            f"logits {before:.2g} off before quantization",
            f"at most {EXACT:g}, which is float32's rounding",
            "The graph is not the model: report it with the adapter's config and the versions of the packages.",
        )
    if stage.mean_kl > limits.max_kl:
        yield f"a KL divergence of {stage.mean_kl:g} nats", f"at most {limits.max_kl:g}", _more_care("max_kl")
    if stage.sure_flips > limits.max_sure_flips * stage.sure:
        found = f"{stage.sure_flips} of {stage.sure} sure choices that come out otherwise"
        yield found, f"at most {limits.max_sure_flips:.0%}", _more_care("max_sure_flips")
    if stage.top1 < limits.min_top1:
        yield f"a top-1 agreement of {stage.top1:.1%}", f"at least {limits.min_top1:.1%}", _more_care("min_top1")
    if stage.exact < limits.min_exact * stage.arguments:
        found = f"{stage.exact} of {stage.arguments} arguments as PEFT writes them"
        yield found, f"at least {limits.min_exact:.1%}", _more_care("min_exact")


def _more_care(limit: str) -> str:
    return (
        "Quantize with more care (smaller blocks, `algorithm: k_quant`, 8 bits), or allow more in the spec: "
        f"`parity: {{limits: {{{limit}: …}}}}`."
    )
