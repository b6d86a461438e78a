"""How a compiled variant's simulation stands beside other engines: what `verify` finds, as the bundle keeps it."""

from __future__ import annotations

from typing import Final

from dualtune_edge.toolkit.bundle.parity import StageParity
from dualtune_edge.toolkit.frozen import Frozen

SIMULATED: Final = "simulated.json"  # in the folder of the variant's model


class Against(Frozen):
    """The simulation compared with one engine, the `reference` of each number."""

    reference: str
    stages: tuple[StageParity, ...]
    choices: int
    agreed: int  # choices that are the reference's
    arguments: int
    same: int  # arguments that are wholly the reference's
    right: int  # of its answers, those that are the held-out ones
    whole: int  # of its held-out calls, those with the right tool and wholly the right arguments


class Verification(Frozen):
    """What `verify --json` prints. Seconds are of the machine that simulated."""

    profile: str
    compiler: str  # whose simulation it was
    asked: int  # prompts; fewer were simulated where it was stopped
    prompts: int
    known: int  # of these, those whose right answer is known: of held-out turns
    right: int  # answers of the simulation that are right
    calls: int  # held-out turns that call a tool
    whole: int  # of these, those with the right tool and wholly the right arguments
    forwards: int
    seconds: float
    against: tuple[Against, ...]

    def line(self) -> str:
        """The report in a line."""
        against = (
            f"{other.agreed} of {other.choices} choices and {other.same} of {other.arguments} arguments "
            f"as {other.reference}"
            for other in self.against
        )
        return f"{self.prompts} prompts, {'; '.join(against)}"
