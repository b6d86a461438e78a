"""What a peer took for a gold call."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """Milliseconds of the whole call, and the tokens that were decoded."""

    ms: float
    decoded: int
