"""A run between two steps, and the file that keeps it: a resumed run ends as an uninterrupted one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.files import aside, unwritable

_INTERVAL: Final = 60.0  # seconds between two checkpoints, where no number of steps is given


@dataclass
class RunState:
    """A run between two steps."""

    origin: str  # fingerprint of what the run is made from
    losses: list[float] = field(default_factory=list)  # of the steps made
    tokens: int = 0
    learnt: int = 0
    adapter: dict[str, Any] = field(default_factory=dict)  # tensors by parameter name
    optimizer: dict[str, Any] = field(default_factory=dict)
    scores: list[tuple[int, int, int, float]] = field(default_factory=list)  # step, right, samples, loss
    best: dict[str, Any] = field(default_factory=dict)  # tensors of the best one's adapter
    random: torch.Tensor | None = None  # state of PyTorch's generator: dropout


class StateFile:
    """A run's checkpoint: written after the first step, then every so many steps or once a minute.

    Args:
        path: where the file is; `state_path` names it.
        every: the number of steps between two checkpoints; None: a minute.
        clock: seconds.

    """

    def __init__(self, path: Path, every: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._every, self._clock = every, clock
        self._saved_at: float | None = None

    def due(self, step: int) -> bool:
        """Whether the state after this step, counted from 1, should be saved."""
        if self._every:
            return step % self._every == 0
        return self._saved_at is None or self._clock() - self._saved_at >= _INTERVAL

    def save(self, state: RunState) -> None:
        """Write the state beside the file first, so that a broken write leaves the old one.

        Raises:
            OutputError, RoomError: it cannot be written.

        """
        try:
            with aside(self.path) as partial:
                with partial.open("wb") as file:
                    torch.save(vars(state), file)
                partial.replace(self.path)
        except (OSError, RuntimeError) as error:
            # Where the file cannot be written, PyTorch's writer ends with a RuntimeError of its own.
            cause = error if isinstance(error, OSError) else error.__context__
            raise unwritable(self.path, cause if isinstance(cause, OSError) else OSError(str(error))) from None
        self._saved_at = self._clock()

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)

    def load(self, origin: str, *, resume: bool) -> RunState:
        """The state to go on from: the file's, or that of a new run.

        Raises:
            OutputError: no state to resume, a state that nobody asked to resume, or one of another run.

        """
        if resume != self.path.exists():
            raise OutputError(
                str(self.path),
                found="no checkpoint" if resume else "the checkpoint of an interrupted run",
                expected="one to resume" if resume else "none for a new run",
                fix="Start without --resume." if resume else "Add --resume to go on with that run, or remove the file.",
            )
        if not resume:
            return RunState(origin)
        try:
            state = RunState(**torch.load(self.path, map_location="cpu", weights_only=True))
        except Exception as error:  # noqa: BLE001 - unpickling raises what the bytes happen to break
            raise OutputError(
                str(self.path),
                found=f"{type(error).__name__}",
                expected="a checkpoint of this version",
                fix="Remove it and start again.",
            ) from None
        if state.origin != origin:
            raise OutputError(
                str(self.path),
                found="the checkpoint of a run with other settings, data or base",
                expected="the same run",
                fix="Resume with the settings of that run, or remove its checkpoint.",
            )
        return state


def state_path(output: Path) -> Path:
    """Where the run that writes `output` keeps its checkpoint."""
    return output.with_name(f"{output.name}.checkpoint")
