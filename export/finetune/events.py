"""What happens in a run, as it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Start:
    """The samples are made; the first step comes next."""

    samples: int
    done: int  # steps made before, of a run that goes on
    steps: int  # of the whole run
    threads: int
    warnings: tuple[str, ...]  # about the samples


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was made."""

    step: int  # from 1
    steps: int
    loss: float  # nats a learnt token


@dataclass(frozen=True, slots=True)
class Interruption:
    """A signal ended the run; its state is saved if it made a step."""

    step: int  # the last one that was made; 0: none
    steps: int


Event: TypeAlias = Start | Step | Interruption
OnEvent: TypeAlias = Callable[[Event], None]
