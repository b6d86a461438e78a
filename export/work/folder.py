"""What an export has finished so far, kept beside its output until the output is there.

`.NAME.partial` beside the output NAME holds

    lock                 held by the export at work there; the system frees it, however that ends
    bundle/              becomes the output
    bundle/export.json   the journal: each finished part's key, and its files with size and SHA-256
    bundle/scratch/      what is needed on the way only

A part is finished when its files are on the disk (fsync), and then the journal says so. Its key covers all that it was
made of (`steps`). It is used again where the journal has that key and every file is still what the journal says; what
no part claims is removed. The journal stays in the bundle, so that another export can take parts from there.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from dualtune_edge.export.work.journal import JOURNAL, Part, Step, parts_of, read_parts, write_parts
from dualtune_edge.toolkit.bundle.manifest import FileEntry
from dualtune_edge.toolkit.errors import OutputError, RoomError
from dualtune_edge.toolkit.files import publish, refuse_existing, sha256_file, sync, unwritable
from dualtune_edge.toolkit.lock import held_folder

SCRATCH: Final = "scratch"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_BUNDLE: Final = "bundle"


def partial(output: Path) -> Path:
    """Where an export to `output` keeps what it has finished."""
    return output.parent / f".{output.name}.partial"


def kept_bytes(output: Path) -> int:
    """Bytes of what an export to `output` has finished and kept.

    Raises:
        OutputError: nothing can be kept there: it is below a file, or its name is too long.

    """
    try:
        parts = read_parts(partial(output) / _BUNDLE)
    except OSError as error:
        raise unwritable(output, error) from None
    return sum(part.size for part in parts.values())


class Work:
    """The folder of one export. A context manager: whoever is in it has the folder for itself.

    When it ends before `publish`, what is finished stays; where nothing is, nothing does.

    Args:
        output: the bundle's folder; nothing may be there yet.
        reuse: an earlier bundle, from which parts with equal keys are copied.
        on_kept: given the folder and its bytes, where it stays.

    Raises:
        OutputError: something is at `output`, another export to it is at work, or it cannot be written.
        RoomError: the disk is full, or the memory.
        SpecError: `reuse` is no bundle with a journal.

    """

    def __init__(
        self, output: Path, reuse: Path | None = None, *, on_kept: Callable[[Path, int], None] = lambda *_: None
    ) -> None:
        self._output, self._root = output, partial(output)
        self.folder = self._root / _BUNDLE
        self._reuse, self._on_kept = reuse, on_kept
        self._others = parts_of(reuse) if reuse else {}
        self._used: dict[str, bool] = {}  # key → whether the part was there already
        self._aside: set[str] = set()  # keys among them that the bundle goes without
        self._published = False

    def __enter__(self) -> Self:
        refuse_existing(self._output)
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(held_folder(self._root))
        except BlockingIOError:
            raise OutputError(
                str(self._output),
                found="another export to it at work",
                expected="one at a time",
                fix="Wait until it has ended, or name another output.",
            ) from None
        except OSError as error:
            raise unwritable(self._output, error) from None
        try:
            refuse_existing(self._output)  # the other one may have been done a moment ago
            self.folder.mkdir(exist_ok=True)
            self._parts = read_parts(self.folder)
            self._remove_unclaimed()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        done = self._published or not self._parts
        if done:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._stack.close()
        if not done:
            self._on_kept(self._root, sum(part.size for part in self._parts.values()))
        cause = error
        while cause and not _lacks_room(cause):
            cause = cause.__cause__
        if cause:
            raise self._no_room(cause) from error

    @property
    def scratch(self) -> Path:
        """A folder for what is needed on the way only."""
        path = self.folder / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    @property
    def reused(self) -> tuple[str, ...]:
        """Names of the parts that were there already."""
        return tuple(self._parts[key].name for key in self._wanted() if self._used[key])

    def has(self, step: Step) -> bool:
        """Whether the part is there, whole; where the other bundle has it, it is then copied."""
        self._aside.discard(step.key)
        if step.key in self._used:
            return True
        part = self._parts.get(step.key)
        if part and not part.is_whole(self.folder):
            self._drop(part)
            part = None
        if part is None:
            part = self._copied(step)
        if part is None:
            return False
        self._used[step.key] = True
        return True

    def value(self, step: Step) -> str:
        """What was kept of a part that is there."""
        return self._parts[step.key].value

    def clear(self, place: Path) -> None:
        """Remove a file or folder that is to be made, and forget the parts that had files in it."""
        inside = place.relative_to(self.folder).as_posix()
        for part in list(self._parts.values()):
            if any(file.path == inside or file.path.startswith(f"{inside}/") for file in part.files):
                self._drop(part)
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)

    def keep(self, step: Step, *files: Path, value: str = "") -> None:
        """Write down that a part is finished, once its files are on the disk."""
        entries = []
        for file in sorted(files):
            sync(file)
            path = file.relative_to(self.folder).as_posix()
            entries.append(FileEntry(path=path, size=file.stat().st_size, sha256=sha256_file(file)))
        self._parts[step.key] = Part(name=step.name, key=step.key, files=tuple(entries), value=value)
        self._used[step.key] = False
        self._aside.discard(step.key)
        write_parts(self.folder, self._parts.values())

    def mark(self) -> frozenset[str]:
        """What is used so far, for `set_aside`."""
        return frozenset(self._used)

    def set_aside(self, mark: frozenset[str]) -> None:
        """Leave out of the bundle what was used since, a failed attempt's; but for what is asked for once more."""
        self._aside |= self._used.keys() - mark

    def seal(self) -> None:
        """Leave in the folder what this export needs, and nothing else."""
        self._parts = {key: _without_scratch(self._parts[key]) for key in self._wanted()}
        write_parts(self.folder, self._parts.values())
        self._remove_unclaimed()

    def publish(self) -> None:
        """Give the folder the output's name.

        Raises:
            OutputError: it cannot be written.

        """
        publish(self.folder, self._output)
        self._published = True

    def _wanted(self) -> list[str]:
        return [key for key in self._used if key not in self._aside]

    def _no_room(self, error: BaseException) -> RoomError:
        memory = isinstance(error, MemoryError)
        return RoomError(
            "memory" if memory else f"the disk of {self._output}",
            found="none left" if memory else str(error),
            expected="room for the rest; --dry-run says how much",
            fix="Make room, then export again: what was finished is used again.",
        )

    def _copied(self, step: Step) -> Part | None:
        part = self._others.get(step.key)
        if part is None or self._reuse is None:
            return None
        for file in part.files:
            here = self.folder / file.path
            self.clear(here)
            here.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self._reuse / file.path, here)
        there = [self.folder / file.path for file in part.files if (self.folder / file.path).is_file()]
        self.keep(step, *there, value=part.value)
        if self._parts[step.key].files == part.files:
            return part
        self._drop(self._parts[step.key])
        return None

    def _drop(self, part: Part) -> None:
        """Forget a part before its files go: the journal never names what is not there."""
        del self._parts[part.key]
        self._used.pop(part.key, None)
        write_parts(self.folder, self._parts.values())
        for file in part.files:
            (self.folder / file.path).unlink(missing_ok=True)

    def _remove_unclaimed(self) -> None:
        claimed = {self.folder / JOURNAL} | {
            self.folder / file.path for each in self._parts.values() for file in each.files
        }
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder before the folder
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.rmdir()  # if it is empty
            elif path not in claimed:
                path.unlink()


def _lacks_room(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _FULL)


def _without_scratch(part: Part) -> Part:
    files = tuple(file for file in part.files if not file.path.startswith(f"{SCRATCH}/"))
    return part.model_copy(update={"files": files})


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())
