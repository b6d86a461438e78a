"""Run by test_export.py in a process with failing_io preloaded: one export a fault, and then one without.

Arguments: the library, a desk, a folder for outputs, and as JSON the faults to try. Prints a JSON list of outcomes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from dualtune_edge.export.plan.spec import read_spec
from dualtune_edge.export.run import run


@dataclass(frozen=True)
class Fault:
    """`turn`: which operation fails, from 1, or as a share of all; `limit`: bytes that a file may have."""

    turn: float = 0
    error: str = "EIO"
    for_good: bool = False
    limit: int | None = None
    reuse: bool = False


@dataclass(frozen=True)
class Outcome:
    """`error`: the class that ended the export; `left`: what stood in the output's folder then.

    `whole`: the bundle, of this export or of one after it, is as one without a fault.
    """

    operation: int
    error: str | None
    message: str
    left: tuple[str, ...]
    left_at_last: tuple[str, ...]
    whole: bool


class Trials:
    """Exports of one desk to folders below `root`."""

    def __init__(self, library: str, desk: Path, root: Path) -> None:
        self._library = ctypes.CDLL(library)
        self._library.disarm.restype = ctypes.c_long
        self._root, self._spec = root, read_spec(desk / "dualtune.yaml")
        self._whole = root / "whole"
        self.operations = {reuse: self._count(reuse=reuse) for reuse in (False, True)}

    def run(self, fault: Fault) -> Outcome:
        """Export with the fault, and once more without it."""
        folder = self._root / "trial"
        folder.mkdir()
        operations = self.operations[fault.reuse]
        turn = round(fault.turn * operations) if fault.turn < 1 else round(fault.turn)
        error, message = None, ""
        try:
            with self._armed(folder, turn, fault):
                self._export(folder / "bundle", reuse=fault.reuse)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the test judges it
            error, message = type(raised).__name__, str(raised)
        left = tuple(sorted(path.name for path in folder.iterdir()))
        if error:
            self._export(folder / "bundle", reuse=fault.reuse)
        whole = _contents(folder / "bundle") == _contents(self._whole)
        at_last = tuple(sorted(path.name for path in folder.iterdir()))
        shutil.rmtree(folder)
        return Outcome(turn, error, message, left, at_last, whole)

    def _count(self, *, reuse: bool) -> int:
        bundle = self._root / "again" if reuse else self._whole
        self._library.arm(str(self._root).encode(), ctypes.c_long(0), 0, 0)
        self._export(bundle, reuse=reuse)
        return int(self._library.disarm())

    def _export(self, bundle: Path, *, reuse: bool) -> None:
        run(self._spec, bundle, reuse=self._whole if reuse else None)

    @contextlib.contextmanager
    def _armed(self, folder: Path, turn: int, fault: Fault) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if fault.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, hard))
        number = getattr(errno, fault.error)
        self._library.arm(str(folder).encode(), ctypes.c_long(turn), number, int(fault.for_good))
        try:
            yield
        finally:
            self._library.disarm()
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    trials = Trials(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    faults = [Fault(**fault) for fault in json.loads(sys.argv[4])]
    if len(sys.argv) > 5:
        faults = [
            Fault(turn + 1, faults[0].error, faults[0].for_good, reuse=reuse)
            for reuse, count in trials.operations.items()
            for turn in range(count)
        ]
    sys.stdout.write(json.dumps([asdict(trials.run(fault)) for fault in faults]))
