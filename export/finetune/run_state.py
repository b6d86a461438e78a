"""Where a run stands, on disk: what makes a resumed run end as an uninterrupted one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.files import aside


@dataclass
class RunState:
    """A run between two steps."""

    origin: str  # fingerprint of what the run is made from
    losses: list[float] = field(default_factory=list)  # of the steps made
    tokens: int = 0
    learnt: int = 0
    adapter: dict[str, Any] = field(default_factory=dict)  # tensors by parameter name
    optimizer: dict[str, Any] = field(default_factory=dict)
    random: torch.Tensor | None = None  # state of PyTorch's generator: dropout

    def save(self, path: Path) -> None:
        """Write the state beside `path` first, so that a broken write leaves the old one."""
        with aside(path) as partial:
            torch.save(asdict(self), partial)
            partial.replace(path)


def state_path(output: Path) -> Path:
    """Where the run that writes `output` keeps its state."""
    return output.with_name(f"{output.name}.checkpoint")


def load_state(path: Path, origin: str, *, resume: bool) -> RunState | None:
    """The state to go on from; None for a fresh run.

    Raises:
        OutputError: no state to resume, a state that nobody asked to resume, or one of another run.

    """
    if resume != path.exists():
        raise OutputError(
            str(path),
            found="no checkpoint" if resume else "the checkpoint of an interrupted run",
            expected="one to resume" if resume else "none for a new run",
            fix="Start without `resume`." if resume else "Resume that run, or remove its checkpoint.",
        )
    if not resume:
        return None
    try:
        state = RunState(**torch.load(path, weights_only=True))
    except Exception as error:  # noqa: BLE001 - unpickling raises what the bytes happen to break
        raise OutputError(
            str(path),
            found=f"{type(error).__name__}",
            expected="a checkpoint of this version",
            fix="Remove it and start again.",
        ) from None
    if state.origin != origin:
        raise OutputError(
            str(path),
            found="the checkpoint of a run with other settings, data or base",
            expected="the same run",
            fix="Resume with the settings of that run, or remove its checkpoint.",
        )
    return state
