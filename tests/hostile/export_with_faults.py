"""Run by test_interrupted.py with failing_io preloaded: exports that are killed or meet an error, and one after each.

Arguments: the library, a desk, a folder for outputs. Reads a fault a line, as JSON, from stdin, and prints an outcome a
line. Every export runs in a process of its own, forked from this one, which has imported all and run nothing.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dualtune_edge.export.run import run
from dualtune_edge.export.spec.document import read_spec

KILL = "KILL"


@dataclass(frozen=True)
class Fault:
    """`turn`: at which operation, as a share of all. `limit`: bytes of a file. `error`: KILL ends the process."""

    turn: float = 0.0
    error: str = "EIO"
    for_good: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Outcome:
    """`error`: the class that ended the export, or `killed`; `left`: what stood in the output's folder then.

    `whole`: the bundle, of this export or of one after it, is as one without a fault. `last`: what stands beside it.
    """

    operation: int
    operations: int
    error: str | None
    message: str
    left: tuple[str, ...]
    last: tuple[str, ...]
    whole: bool


class Trials:
    """Exports of one desk to folders below `root`."""

    def __init__(self, library: str, desk: Path, root: Path) -> None:
        self._library = ctypes.CDLL(library)
        self._library.disarm.restype = ctypes.c_long
        self._root, self._spec, self._whole = root, read_spec(desk / "dualtune.yaml"), root / "whole"
        self.operations = int(_forked(self._count)[1])

    def run(self, fault: Fault) -> Outcome:
        """Export with the fault, and once more without it."""
        folder = self._root / "trial"
        folder.mkdir()
        turn = 1 + int(fault.turn * self.operations) if fault.limit is None else 0
        status, said = _forked(lambda: self._fail(folder, turn, fault))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        error, _, message = ("killed", "", "") if killed else said.partition(" ")
        left = _names(folder)
        if error:
            _forked(lambda: self._export(folder / "bundle"))
        whole = _contents(folder / "bundle") == _contents(self._whole)
        last = _names(folder)
        shutil.rmtree(folder)
        return Outcome(turn, self.operations, error or None, message, left, last, whole)

    def _count(self) -> str:
        self._library.arm(str(self._root).encode(), ctypes.c_long(0), 0, 0)
        self._export(self._whole)
        return str(self._library.disarm())

    def _export(self, bundle: Path) -> str:
        run(self._spec, bundle)
        return ""

    def _fail(self, folder: Path, turn: int, fault: Fault) -> str:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if fault.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, hard))
        number = 0 if fault.error == KILL else getattr(errno, fault.error)
        self._library.arm(str(folder).encode(), ctypes.c_long(turn), number, int(fault.for_good))
        try:
            self._export(folder / "bundle")
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the test judges it
            return f"{type(raised).__name__} {raised}"
        finally:
            self._library.disarm()
        return ""


def _forked(act: Callable[[], str]) -> tuple[int, str]:
    """What `act` returns in a child process, and how the child ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os.dup2(2, 1)  # stdout is the outcomes'
        said = act().encode()
        os.write(writer, said)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        said_by_child = pipe.read()
    return os.waitpid(child, 0)[1], said_by_child


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir()))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    gc.freeze()  # else each collection of each export looks through PyTorch's objects, as the command line's does not
    trials = Trials(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(trials.run(Fault(**json.loads(line))))) + "\n")
        sys.stdout.flush()
