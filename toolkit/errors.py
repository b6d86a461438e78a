"""Every error that a user can meet: one sentence a class, an exit code each.

Each error says where it is, what was found, what was expected and what to do next. The command line prints it in
one or two lines and exits with the class's code; a library caller catches `EdgeError`. Exit code 2 is the shell's
own (wrong flags), 1 an error that nobody foresaw (a defect of this package).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Reached:
    """How far a call came before an error: what was chosen, and the arguments as far as they are written, as JSON."""

    toolset: str | None = None
    tool: str | None = None
    arguments: str | None = None


class EdgeError(Exception):
    """The root of the tree; never raised itself. `reached`: of a call that had begun to be answered."""

    exit_code: ClassVar[int] = 1

    def __init__(self, where: str, *, found: str, expected: str, fix: str) -> None:
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        self.reached: Reached | None = None
        super().__init__(f"{where}: found {found}; expected {expected}. {fix}")


class SpecError(EdgeError):
    """What the user wrote, in `dualtune.yaml` or by flags, cannot be followed."""

    exit_code = 3


class ToolsError(EdgeError):
    """A tool list or a tool's schema cannot be used."""

    exit_code = 4


class TemplateError(EdgeError):
    """A chat template fails, or does not render what a stage needs."""

    exit_code = 5


class CheckpointError(EdgeError):
    """The base model's folder is incomplete, damaged or of an architecture that cannot be exported."""

    exit_code = 6


class AdapterError(EdgeError):
    """A LoRA adapter cannot be used exactly as it is."""

    exit_code = 7


class GraphError(EdgeError):
    """A graph that was built is not the one that was asked for."""

    exit_code = 8


class OutputError(EdgeError):
    """The output cannot be written where it was asked for."""

    exit_code = 9


class BundleError(EdgeError):
    """A bundle is damaged, incomplete or of another format."""

    exit_code = 10


class ProfileError(EdgeError):
    """A hardware profile is unknown, malformed or does not fit this machine."""

    exit_code = 11


class RequestError(EdgeError):
    """A request cannot be answered: malformed messages, or a prompt longer than the context."""

    exit_code = 12


class EngineError(EdgeError):
    """An inference engine failed, or cannot do what was asked of it."""

    exit_code = 13


class DataError(EdgeError):
    """Conversations in a file (trajectories, to train with or to measure) cannot be used."""

    exit_code = 14


class MissingExtraError(EdgeError):
    """A build-side command was called where the extra that it needs is not installed."""

    exit_code = 15


class ParityError(EdgeError):
    """A graph answers further from PEFT's float32 than the limits allow."""

    exit_code = 16


class StoppedError(EdgeError):
    """A call ended before its answer: it was cancelled, took too long, or its agent was closed."""

    exit_code = 18


class RoomError(EdgeError):
    """The disk or the memory that the work needs is not there."""

    exit_code = 17


class FileError(EdgeError):
    """The system does not let a file be read or written."""

    exit_code = 19


class TrustError(EdgeError):
    """A bundle is not signed as the trust policy asks, or the policy cannot be used."""

    exit_code = 21


class StoreError(EdgeError):
    """A store of bundles is damaged, busy, or is asked to go back without an operator's word."""

    exit_code = 22
