"""What the base is trained on, in which order: two courses, each with a schedule of the learning rate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from dualtune_edge_kit.training.pretraining import kindred, texts
from dualtune_edge_kit.training.pretraining.second import Lengths
from dualtune_edge_kit.training.pretraining.texts import Document, Templates

_WARM_UP: Final = 50  # steps
_LEG: Final = 50  # steps between two saves; texts are drawn by seed leg by leg, so a resumed run draws the same

Source: TypeAlias = Callable[[str, Templates], Iterator[Document]]  # texts of a seed


@dataclass(frozen=True)
class Phase:
    """A part of the training, all of whose rows are of one length."""

    steps: int
    rows: int  # packed rows in a step
    row: int  # tokens in a row
    source: Source
    int4: bool = False


@dataclass(frozen=True)
class Course:
    """Phases with one warm-up, plateau and decay of the learning rate."""

    peak: float  # learning rate of both optimizers
    phases: tuple[Phase, ...]
    decay: float = 0.6  # share of the steps, at the end, over which the rate falls to zero

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def legs(self) -> Iterator[tuple[int, int, Phase]]:
        """(first step, steps, phase) of every leg."""
        start = 0
        for phase in self.phases:
            for done in range(0, phase.steps, _LEG):
                yield start + done, min(_LEG, phase.steps - done), phase
            start += phase.steps

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        left = (self.steps - step) / (self.decay * self.steps)
        return self.peak * min(1.0, (step + 1) / _WARM_UP, left)


def _first(copying: float, echoing: float) -> Source:
    return partial(texts.documents, copying=copying, echoing=echoing)


def _kindred(lines: tuple[int, ...], tools: tuple[int, ...], requests: tuple[int, ...]) -> Source:
    return partial(kindred.documents, lengths=Lengths(lines, tools, requests))


FIRST: Final = Course(
    peak=3e-3,
    phases=(
        # Copying first: everything else needs it.
        Phase(steps=340, rows=8, row=512, source=_first(copying=0.5, echoing=0.7)),
        Phase(steps=3160, rows=8, row=512, source=_first(copying=0.125, echoing=0.2)),
        # Then long rows, since a joint prompt has 900 tokens, and last the weights in int4.
        Phase(steps=630, rows=4, row=1024, source=_first(copying=0.1, echoing=0.2)),
        Phase(steps=330, rows=4, row=1024, source=_first(copying=0.1, echoing=0.2), int4=True),
    ),
)
_LONG: Final = _kindred((1, 2, 3, 4, 4, 5, 6), (6, 8, 10, 14), (2, 3, 4))
# For a base that the first course made, with two layers more and a larger vocabulary: servers such as the kit's two.
SECOND: Final = Course(
    peak=2e-3,
    decay=0.45,
    phases=(
        # Short lists first: the choice of one tool of two is learnt where that of one of fourteen is not.
        Phase(steps=300, rows=8, row=512, source=_kindred((1, 1, 2, 2, 3), (2, 2, 3, 3, 4, 5), (1, 2))),
        Phase(steps=1300, rows=8, row=512, source=_kindred((1, 2, 2, 3, 4), (3, 4, 6, 8, 14), (1, 2, 3))),
        Phase(steps=150, rows=4, row=1024, source=_LONG),
        Phase(steps=150, rows=4, row=1024, source=_LONG, int4=True),
    ),
)
