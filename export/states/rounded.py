"""Compares prefix states in float16 with the exact ones, by the answers of the bundle's own graphs after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.compare.metrics import Comparison, distance, summary
from dualtune_edge.export.compare.record import Question, begin, logits_after, record
from dualtune_edge.export.compare.stages import Renderer, Walker
from dualtune_edge.export.compare.verdict import first_breach
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.export.spec.parts import ParitySpec
from dualtune_edge.runtime.engines.engine import Engine, Snapshot
from dualtune_edge.toolkit.bundle.parity import StageParity, StateParity
from dualtune_edge.toolkit.errors import ParityError

Rounded: TypeAlias = Literal["float16", "auto"]


class Rounder:
    """Rounds states to float16 where the answers allow it.

    The prompts are those of the comparison with PEFT: made for each stage, and the user's own that name their toolset
    and tool. With `float16` the differences must be within the limits of that comparison; with `auto` every choice and
    all arguments must be the same too.

    Args:
        checkpoint: the base, whose tokenizer renders the prompts.
        subjects: all stages.
        wanted: whether a state beyond that is an error (`float16`) or stays in float32 (`auto`).
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
        self._renderer = Renderer(checkpoint, spec.argument_tokens) if spec else None
        self._walkers = [Walker(case.messages, case.toolset, case.tool) for case in calibration]

    def choose(
        self, engine: Engine, path: str, stages: Sequence[str], exact: Snapshot
    ) -> tuple[Snapshot, StateParity | None]:
        """The state to store, and its comparison.

        Args:
            engine: an engine with the adapter in use under which the state was computed.
            path: the path of the state in the bundle.
            stages: names of the stages that begin with it.
            exact: the exact state.

        Raises:
            ParityError: the spec asks for float16, and the differences are beyond the limits.

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
                expected="differences within the limits of the comparison with PEFT",
                fix="Set `prefix_states_type: auto`, which keeps such states in float32.",
            )
        judged = StateParity(path=path, exact_because=why, stages=compared) if self._spec else None
        return (exact if rounded is None or why else rounded), judged

    def _compare(self, engine: Engine, stage: str, exact: Snapshot, rounded: Snapshot) -> StageParity:
        subject = self._subjects[stage]
        questions = self._renderer.questions(subject, self._walkers) if self._renderer else ()
        comparisons = [_compare(engine, question, exact, rounded) for question, _ in questions]
        return summary(stage, subject.stage.adapter_name, comparisons)

    def _why_not(self, stages: Sequence[StageParity]) -> str | None:
        breach = first_breach(stages, self._spec.limits) if self._spec else None
        if breach:
            return f"{breach.where}: {breach.found}"
        if self._wanted == "float16":
            return None
        for stage in stages:
            if stage.flips:
                return f"{stage.stage}: {stage.flips} of {stage.choices} choices differ"
            if stage.exact < stage.arguments:
                return f"{stage.stage}: {stage.arguments - stage.exact} of {stage.arguments} arguments differ"
            if stage.same_texts < stage.texts:
                return f"{stage.stage}: {stage.texts - stage.same_texts} of {stage.texts} texts differ"
        return None


def _rounded(exact: Snapshot) -> Snapshot | None:
    """None where a value is beyond float16's range."""
    with np.errstate(over="ignore"):
        values: NDArray[np.float16] = np.asarray(exact.state).astype(np.float16)
    return Snapshot(exact.identity, exact.tokens, values) if np.isfinite(values).all() else None


def _restore(engine: Engine, state: Snapshot, question: Question) -> None:
    """Begin the question's prompt after a state."""
    if engine.identity != state.identity:  # an activated adapter was in use behind it
        engine.switch(None)
    engine.restore(state)
    begin(engine, question)


def _compare(engine: Engine, question: Question, exact: Snapshot, rounded: Snapshot) -> Comparison:
    """Answer after the rounded state; read the same tokens, and answer, after the exact one."""
    _restore(engine, rounded, question)
    after_rounded = record(engine, question)
    _restore(engine, exact, question)
    logits = {path: logits_after(engine, path) for path in after_rounded.logits}
    after_exact = record(engine, question)
    return Comparison(
        distances=tuple(
            distance(logits[path], rounded_logits) for path, rounded_logits in after_rounded.logits.items()
        ),
        before=None,
        same=after_exact.answer == after_rounded.answer,
        sure=after_exact.choice.probability if after_exact.choice else None,
        finished=after_rounded.finished,
        text=after_rounded.text is not None,
    )
