"""What an evaluation found, as values: `evaluate --json` prints an `Evaluation`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from dualtune_edge.runtime.evaluate.answers import Answer, Call, ErrorKind, PropertyState
from dualtune_edge.runtime.evaluate.statistics import Calibration, Difference, Share, Threshold, calibrate, thresholds
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.frozen import Frozen

EXAMPLES: Final = 3  # of each kind of error
_CURVE: Final = 60  # points of a curve at most


class Scores(Frozen):
    """Shares of right answers.

    `answers`: toolset, tool and arguments, or no tool where none is needed, of all turns. `tools`: the tool, or none,
    within the expected toolset. `calls`: tool and arguments within it, of the turns that call. `routed_calls`: toolset,
    tool and arguments, of the same turns. `abstentions`: no tool, of the turns that need none. `needed`: some tool, of
    the turns that need one. `toolsets` is null for a bundle of one toolset.
    """

    answers: Share
    toolsets: Share | None
    tools: Share
    calls: Share
    routed_calls: Share
    abstentions: Share
    needed: Share


class PropertyScore(Frozen):
    """An argument, over the calls with the right tool that have it or should."""

    toolset: str
    tool: str
    name: str
    right: Share
    wrong: int
    missing: int
    extra: int


class Confusion(Frozen):
    """How often a tool was answered where another or the same was expected; null for none. Within the toolset."""

    toolset: str
    expected: str | None
    answered: str | None
    count: int


class Example(Frozen):
    """One wrong answer."""

    where: str
    said: str
    expected: Call
    answer: Call | None
    probability: float
    refusal: str


class Mistakes(Frozen):
    """Wrong answers of one kind, with the first few of them."""

    kind: ErrorKind
    count: int
    examples: tuple[Example, ...]


class Side(Frozen):
    """One system over all turns. `calibration` is null where it says no probabilities.

    `manifest_sha256`: of a bundle's manifest.json, by which the documents of a release know it.
    """

    name: str
    manifest_sha256: str | None
    scores: Scores
    properties: tuple[PropertyScore, ...]
    confusions: tuple[Confusion, ...]
    calibration: Calibration | None
    curve: tuple[Threshold, ...]
    mistakes: tuple[Mistakes, ...]


class Comparison(Frozen):
    """The other side, and by how much ours is right more often."""

    other: Side
    tools: Difference
    right: Difference


class Evaluation(Frozen):
    """What `evaluate --json` prints."""

    data: str
    turns: int
    ours: Side
    against: Comparison | None


def side(
    name: str,
    answers: Sequence[Answer],
    *,
    toolsets: int,
    aim: float,
    calibrated: bool = True,
    manifest_sha256: str | None = None,
) -> Side:
    """What one system's answers come to."""
    pairs = [(answer.probability, answer.right) for answer in answers]
    called = [answer.answer is not None and answer.answer.tool is not None for answer in answers]
    made = [pair for pair, call in zip(pairs, called, strict=True) if call]
    return Side(
        name=name,
        manifest_sha256=manifest_sha256,
        scores=_scores(answers, toolsets),
        properties=tuple(_properties(answers)),
        confusions=tuple(_confusions(answers)),
        calibration=calibrate(pairs, called, aim) if calibrated else None,
        curve=tuple(_thinned(thresholds(made))) if calibrated else (),
        mistakes=tuple(_mistakes(answers)),
    )


def compare(ours: Sequence[Answer], theirs: Sequence[Answer], other: Side) -> Comparison:
    """Both sides on the same turns.

    Raises:
        DataError: they answered others.

    """
    refuse_others([answer.where for answer in ours], [answer.where for answer in theirs], other.name)
    return Comparison(
        other=other,
        tools=Difference.paired([answer.named for answer in ours], [answer.named for answer in theirs]),
        right=Difference.paired([answer.right for answer in ours], [answer.right for answer in theirs]),
    )


def refuse_others(ours: Sequence[str], theirs: Sequence[str], other: str) -> None:
    """Refuse to compare what was not asked alike: BFCL's rows are those that a bundle has the functions of.

    Raises:
        DataError: the names of what both sides did differ.

    """
    if ours != theirs:
        raise DataError(
            other,
            found=f"{len(theirs)} that it can answer, {len(set(ours) & set(theirs))} of them the same",
            expected=f"the {len(ours)} that the first one answers",
            fix="Compare bundles of the same tools.",
        )


def _scores(answers: Sequence[Answer], toolsets: int) -> Scores:
    calling = [answer for answer in answers if answer.expected.tool is not None]
    quiet = [answer for answer in answers if answer.expected.tool is None]
    return Scores(
        answers=Share.count([answer.right for answer in answers]),
        toolsets=Share.count([answer.routed for answer in answers]) if toolsets > 1 else None,
        tools=Share.count([answer.named for answer in answers]),
        calls=Share.count([answer.whole for answer in calling]),
        routed_calls=Share.count([answer.right for answer in calling]),
        abstentions=Share.count([answer.right for answer in quiet]),
        needed=Share.count([answer.answer is not None and answer.answer.tool is not None for answer in calling]),
    )


def _properties(answers: Iterable[Answer]) -> Iterable[PropertyScore]:
    """The worst first."""
    found: dict[tuple[str, str, str], list[PropertyState]] = {}
    for answer in answers:
        for name, state in answer.properties():
            found.setdefault((answer.expected.toolset, str(answer.expected.tool), name), []).append(state)
    scores = [
        PropertyScore(
            toolset=toolset,
            tool=tool,
            name=name,
            right=Share.count([state == "right" for state in states]),
            wrong=states.count("wrong"),
            missing=states.count("missing"),
            extra=states.count("extra"),
        )
        for (toolset, tool, name), states in found.items()
    ]
    return sorted(scores, key=lambda score: (score.right.right - score.right.of, score.right.share))


def _confusions(answers: Iterable[Answer]) -> Iterable[Confusion]:
    """In the order of the toolsets and tools, each with its most frequent answers first."""
    counts = Counter(
        (answer.expected.toolset, answer.expected.tool, answer.within.tool) for answer in answers if answer.within
    )
    for (toolset, expected, answered), count in sorted(
        counts.items(), key=lambda item: (item[0][0], item[0][1] or "", -item[1], item[0][2] or "")
    ):
        yield Confusion(toolset=toolset, expected=expected, answered=answered, count=count)


def _mistakes(answers: Iterable[Answer]) -> Iterable[Mistakes]:
    """The most frequent kind first."""
    kinds: dict[ErrorKind, list[Answer]] = {}
    for answer in answers:
        if kind := answer.error():
            kinds.setdefault(kind, []).append(answer)
    for kind, wrong in sorted(kinds.items(), key=lambda item: -len(item[1])):
        examples = tuple(
            Example(
                where=answer.where,
                said=answer.said,
                expected=answer.expected,
                answer=answer.answer,
                probability=round(answer.probability, 4),
                refusal=answer.refusal,
            )
            for answer in wrong[:EXAMPLES]
        )
        yield Mistakes(kind=kind, count=len(wrong), examples=examples)


def _thinned(points: Sequence[Threshold]) -> Sequence[Threshold]:
    """At most so many points, the last among them."""
    step = math.ceil(len(points) / _CURVE) if points else 1
    return [point for number, point in enumerate(points) if (len(points) - 1 - number) % step == 0]
