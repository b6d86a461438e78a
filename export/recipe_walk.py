"""Tries one recipe after the other until one is within the limits of the comparison with PEFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.compare.verdict import Breach, first_breach, inexact
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.spec.recipes import name_of
from dualtune_edge.export.work.folder import Work
from dualtune_edge.toolkit.bundle.parity import ParityReport, RefusedRecipe
from dualtune_edge.toolkit.bundle.quantization import Quantization


@dataclass(frozen=True)
class Attempt:
    """A model that was built and compared. Its files stay in the work folder until the next attempt."""

    inputs: Inputs
    graphs: BundleGraphs
    parity: ParityReport


Build: TypeAlias = Callable[[Quantization, Sequence[ParityReport] | None], Attempt]  # with the earlier comparisons


def first_within(recipes: Sequence[Quantization], build: Build, work: Work) -> Attempt:
    """The first attempt that is within the limits; else the best one, which is not.

    The best has the fewest stages beyond a limit, and among equals the smallest divergence. A single recipe is built
    and returned, whatever its comparison says. Files of a refused attempt stay out of the bundle.

    Args:
        recipes: in order.
        build: builds the model and compares it.
        work: the folder in which it is built.

    """
    if len(recipes) == 1:
        return build(recipes[0], None)
    reports: list[ParityReport] = []
    refused: list[RefusedRecipe] = []
    best: Attempt | None = None
    for recipe in recipes:
        mark = work.mark()
        attempt = build(recipe, tuple(reports))
        breach = first_breach(attempt.parity.stages, attempt.parity.limits)
        if breach is None or inexact(attempt.parity.stages):
            return _with_refused(attempt, refused)
        reports.append(attempt.parity)
        refused.append(_refusal(attempt, breach))
        if best is None or refused[-1] is min(refused, key=_distance):
            best = attempt
        work.set_aside(mark)
    if best is None:
        raise ValueError("no recipe")
    return _with_refused(best, refused)


def _refusal(attempt: Attempt, breach: Breach) -> RefusedRecipe:
    quantization = attempt.inputs.quantization
    return RefusedRecipe(
        recipe=name_of(quantization),
        quantization=quantization,
        why=f"{breach.where}: {breach.found}; expected {breach.expected}",
        stages_beyond=breach.stages,
        max_kl=max(stage.mean_kl for stage in attempt.parity.stages),
    )


def _distance(refused: RefusedRecipe) -> tuple[int, float]:
    return refused.stages_beyond, refused.max_kl


def _with_refused(attempt: Attempt, refused: Sequence[RefusedRecipe]) -> Attempt:
    return replace(attempt, parity=attempt.parity.model_copy(update={"refused": tuple(refused)}))
