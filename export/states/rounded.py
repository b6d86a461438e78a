"""Prefix states in float16 against the exact ones: what the bundle's own graphs answer behind each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.compare.metrics import Comparison, distance, summary
from dualtune_edge.export.compare.record import Question, logits_after, record
from dualtune_edge.export.compare.stages import Asker, Walker
from dualtune_edge.export.compare.verdict import first_breach
from dualtune_edge.export.plan.spec import ParitySpec
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.runtime.engines.engine import Engine, Snapshot
from dualtune_edge.toolkit.bundle.parity import StageParity, StateParity
from dualtune_edge.toolkit.errors import ParityError

Rounded: TypeAlias = Literal["float16", "auto"]


class Rounder:
    """Rounds states to float16, where that is good enough.

    What is judged are the prompts that the stages are compared with PEFT on: those made up for each, and of the user's
    own those that say their toolset and tool. `float16` asks for the limits of that comparison, here of rounding alone;
    `auto` besides for the same choice and the same arguments on every prompt.

    Args:
        checkpoint: whose tokenizer renders the prompts.
        subjects: all stages.
        wanted: what happens to a state that is not good enough: an error, or it stays in float32.
        spec: the comparison; None: nothing is compared.
        calibration: the user's own conversations.

    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        subjects: Sequence[Subject],
        wanted: Rounded,
        spec: ParitySpec | None,
        calibration: Sequence[Case],
    ) -> None:
        self._subjects = {subject.stage.name: subject for subject in subjects}
        self._wanted, self._spec = wanted, spec
        self._ask = Asker(checkpoint, spec.argument_tokens) if spec else None
        self._walkers = [Walker(case.messages, case.toolset, case.tool) for case in calibration]

    def choose(
        self, engine: Engine, path: str, stages: Sequence[str], exact: Snapshot
    ) -> tuple[Snapshot, StateParity | None]:
        """The state to store, and how it was judged.

        Args:
            engine: has the stages' adapter in use.
            path: the state's in the bundle.
            stages: names of those that begin with it.
            exact: the state.

        Raises:
            ParityError: float16 was asked for, and it is not good enough.

        """
        rounded = _rounded(exact)
        compared: tuple[StageParity, ...] = ()
        if self._spec and rounded:
            compared = tuple(self._compare(engine, name, exact, rounded) for name in stages)
        why = self._why_not(compared) if rounded else "values beyond float16's range"
        if why and self._wanted == "float16":
            raise ParityError(
                f"{path} in float16",
                found=why,
                expected="what the limits of the comparison with PEFT allow",
                fix="Set `prefix_states_type: auto`, which keeps such states in float32.",
            )
        judged = StateParity(path=path, exact_because=why, stages=compared) if self._spec else None
        return (exact if rounded is None or why else rounded), judged

    def _compare(self, engine: Engine, stage: str, exact: Snapshot, rounded: Snapshot) -> StageParity:
        subject = self._subjects[stage]
        questions = self._ask.questions(subject, self._walkers) if self._ask else ()
        comparisons = [_compare(engine, question, exact, rounded) for question, _ in questions]
        return summary(stage, subject.stage.adapter.name if subject.stage.adapter else None, comparisons)

    def _why_not(self, stages: Sequence[StageParity]) -> str | None:
        breach = first_breach(stages, self._spec.limits) if self._spec else None
        if breach:
            return f"{breach.where}: {breach.found}"
        if self._wanted == "float16":
            return None
        for stage in stages:
            if stage.flips:
                return f"{stage.stage}: {stage.flips} of {stage.choices} choices come out otherwise"
            if stage.exact < stage.arguments:
                return (
                    f"{stage.stage}: {stage.arguments - stage.exact} of {stage.arguments} arguments come out otherwise"
                )
        return None


def _rounded(exact: Snapshot) -> Snapshot | None:
    """None where a value is beyond float16's range."""
    with np.errstate(over="ignore"):
        values: NDArray[np.float16] = np.asarray(exact.state).astype(np.float16)
    return Snapshot(exact.identity, exact.tokens, values) if np.isfinite(values).all() else None


def _compare(engine: Engine, question: Question, exact: Snapshot, rounded: Snapshot) -> Comparison:
    """Answer behind the rounded state; then read the same tokens, and answer, behind the exact one."""
    engine.restore(rounded)
    found = record(engine, question)
    engine.restore(exact)
    read = {path: logits_after(engine, path) for path in found.logits}
    own = record(engine, question)
    return Comparison(
        distances=tuple(distance(logits, found.logits[path]) for path, logits in read.items()),
        before=None,
        same=own.answer == found.answer,
        sure=own.choice.probability if own.choice else None,
        finished=found.finished,
    )
