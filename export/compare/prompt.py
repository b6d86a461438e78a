"""Compares one prompt on the bundle's graph, on the graph before quantization, and on the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dualtune_edge.export.compare.cached_reference import CachedReference
from dualtune_edge.export.compare.metrics import Comparison, distance
from dualtune_edge.export.compare.record import (
    Logits,
    PartedError,
    Path,
    Question,
    Record,
    begin,
    logits_after,
    record,
)
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.runtime.engines.engine import Engine


@dataclass(frozen=True)
class Outcome:
    """The comparison of one prompt, and what the comparison before quantization needs of it.

    `chosen` is the reference's choice, "" for arguments and texts. `ends` are its logits after the first and the last
    forward of the bundle: a graph before quantization differs by rounding, or everywhere.
    """

    comparison: Comparison
    chosen: str
    ends: Mapping[Path, Logits]
    question: Question


def compare(question: Question, bundle: Engine, reference: CachedReference) -> Outcome:
    """Answer on the bundle's graph, read the same tokens on the reference, and answer on the reference.

    The reference is given the prompt alone: PEFT itself looks for the invocation of an activated adapter.

    Both engines have the stage's adapter in use. The reference reads the bundle's tokens in one forward.

    Raises:
        RequestError: the prompt is longer than the context.

    """
    begin(bundle, question)
    exported = record(bundle, question)
    reference.begin(question.given)
    reference.expect(exported.path)
    ends: dict[Path, Logits] = dict.fromkeys((min(exported.logits, key=len), exported.path), np.empty(0, np.float32))
    distances = []
    for path, logits in exported.logits.items():
        own = logits_after(reference, path)
        distances.append(distance(own, logits))
        if path in ends:  # the others need not be kept
            ends[path] = own
    choice = record(reference, question).choice if exported.choice else None
    same = (
        choice.winner == exported.choice.winner if choice and exported.choice else _same(exported, reference, question)
    )
    comparison = Comparison(
        distances=tuple(distances),
        before=None,
        same=same,
        sure=choice.probability if choice else None,
        finished=exported.finished,
        text=exported.text is not None,
    )
    return Outcome(comparison, choice.winner if choice else "", ends, question)


def compare_before(outcome: Outcome, before: Engine, reference: TorchEngine | None) -> Comparison:
    """Compare a graph before quantization at both ends.

    Args:
        outcome: the comparison after quantization.
        before: the graph before quantization, with the stage's adapter in use.
        reference: reads the tokens again; None: the outcome is of the same depth.

    """
    begin(before, outcome.question)
    if reference:
        reference.begin(outcome.question.given)
        reference.expect(max(outcome.ends, key=len))
    errors = [
        np.abs(logits_after(before, path) - (logits_after(reference, path) if reference else logits)).max()
        for path, logits in outcome.ends.items()
    ]
    return replace(outcome.comparison, before=float(np.max(errors)))


def _same(exported: Record, reference: CachedReference, question: Question) -> bool:
    """Whether the reference writes the same arguments or text; it stops where it reads other tokens than the bundle."""
    try:
        own = record(reference, question, along=exported.logits)
    except PartedError:
        return False
    return own.answer == exported.answer and own.path == exported.path
