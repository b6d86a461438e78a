"""One prompt on the bundle's graph, on the graph before quantization, and on the reference."""

from __future__ import annotations

import numpy as np

from dualtune_edge.export.parity.metrics import Comparison, distance
from dualtune_edge.export.parity.record import PartedError, Question, Record, logits_after, record
from dualtune_edge.export.parity.remembered import Remembering
from dualtune_edge.runtime.engine import Engine


def compare(
    question: Question, bundle: Engine, before: Engine | None, reference: Remembering
) -> tuple[Comparison, str]:
    """Let the bundle's graph answer, have the others read the same tokens, and let the reference answer for itself.

    Each engine has the stage's adapter. The reference reads all that the bundle read in one forward. The graph before
    quantization is compared at both ends of it: it differs by rounding, or everywhere.

    Returns:
        The comparison, and the reference's choice ("" for arguments).

    Raises:
        RequestError: the prompt is longer than the context.

    """
    exported = record(bundle, question)
    reference.expect(exported.path)
    read = {path: logits_after(reference, path) for path in exported.logits}
    ends = {min(read, key=len), exported.path} if before else set()
    errors = [float(np.abs(logits_after(before, path) - read[path]).max()) for path in ends] if before else []
    choice = record(reference, question).choice if exported.choice else None
    same = (
        choice.winner == exported.choice.winner if choice and exported.choice else _same(exported, reference, question)
    )
    comparison = Comparison(
        distances=tuple(distance(logits, exported.logits[path]) for path, logits in read.items()),
        before=float(np.max(errors)) if errors else None,
        same=same,
        sure=choice.probability if choice else None,
        finished=exported.choice is not None or exported.arguments is not None,
    )
    return comparison, choice.winner if choice else ""


def _same(exported: Record, reference: Remembering, question: Question) -> bool:
    """Whether the reference writes the same arguments: it is let go as far as it goes the same way."""
    try:
        own = record(reference, question, along=exported.logits)
    except PartedError:
        return False
    return own.arguments == exported.arguments and own.path == exported.path
