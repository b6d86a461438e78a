"""The parts that an export has finished, kept beside its output until the output is there.

`.NAME.partial` beside the output NAME holds

    lock                 held by the export at work there; the system frees it, however that ends
    bundle/              becomes the output
    bundle/export.json   the journal: each finished part's key, and its files with size and SHA-256
    bundle/scratch/      files that the finished bundle does not have

A part is finished when its files are on the disk (fsync), and then the journal says so. Its key covers all that it is
made of (`steps`). It is used again where the journal has that key and every file is still the one in the journal; files
that belong to no part are removed. The journal stays in the bundle, so that another export can copy parts from it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from dualtune_edge.export.work.journal import JOURNAL, Part, Step, file_entry, parts_of, read_parts, write_parts
from dualtune_edge.toolkit.errors import EdgeError, OutputError, RoomError
from dualtune_edge.toolkit.files import NO_ROOM, publish, refuse_existing, sync, unwritable
from dualtune_edge.toolkit.lock import held_folder

SCRATCH: Final = "scratch"
_BUNDLE: Final = "bundle"
_RUST: Final = re.compile(r"\(os error (\d+)\)")


def partial(output: Path) -> Path:
    """The folder in which an export to `output` keeps its finished parts."""
    return output.parent / f".{output.name}.partial"


def refuse_taken(output: Path) -> None:
    """Raise `OutputError` if something is at the output already.

    What an export leaves that is killed once it has published, its lock or an empty folder, is removed.
    """
    root = partial(output)
    with contextlib.suppress(OSError):
        if root.exists() and not (root / _BUNDLE).exists():
            with held_folder(root):
                pass
    refuse_existing(output)


def kept_bytes(output: Path) -> int:
    """Bytes of the finished parts of an export to `output`.

    Raises:
        OutputError: nothing can be kept there: it is below a file, or its name is too long.

    """
    try:
        parts = read_parts(partial(output) / _BUNDLE)
    except OSError as error:
        raise unwritable(output, error) from None
    return sum(part.size for part in parts.values())


class Work:
    """The folder of one export. A context manager: no other export is in the folder while it is open.

    When it ends before `publish`, finished parts stay; without any, nothing stays. Every error of the system on the way
    leaves it as an `OutputError` or a `RoomError`.

    Args:
        output: the bundle's folder; nothing may be there yet.
        reuse: an earlier bundle, from which parts with equal keys are copied.
        on_kept: called with the folder that stays and its bytes.

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
        self._reusable = parts_of(reuse) if reuse else {}
        self._used: dict[str, bool] = {}  # key → whether the part was there already
        self._aside: set[str] = set()  # keys among them that the bundle goes without
        self._published = False

    def __enter__(self) -> Self:
        refuse_taken(self._output)
        self._stack = contextlib.ExitStack()
        try:
            self._stack.enter_context(held_folder(self._root))
            refuse_existing(self._output)  # another export may have published a moment ago
            self.folder.mkdir(exist_ok=True)
            self._parts = read_parts(self.folder)
            self._remove_unclaimed()
        except BlockingIOError:
            raise OutputError(
                str(self._output),
                found="another export to it at work",
                expected="one at a time",
                fix="Wait until it has ended, or name another output.",
            ) from None
        except OSError as error:
            self._stack.close()
            raise unwritable(self._output, error) from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        done = self._published or not self._parts or not self.folder.exists()  # it has its name, and an error came then
        if done:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._stack.close()
        if not done:
            self._on_kept(self._root, sum(part.size for part in self._parts.values()))
        if failure := _failure(error, self._output):
            raise failure from error

    @property
    def scratch(self) -> Path:
        """A folder for files that the finished bundle does not have."""
        path = self.folder / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    @property
    def reused(self) -> tuple[str, ...]:
        """Names of the parts that were there already."""
        return tuple(self._parts[key].name for key in self._wanted() if self._used[key])

    def has(self, step: Step) -> bool:
        """Whether the part is there, whole. A part of the earlier bundle is copied."""
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
        """The value of a part that is there."""
        return self._parts[step.key].value

    def clear(self, path: Path) -> None:
        """Remove a file or folder that is to be written, and forget the parts with files in it."""
        inside = path.relative_to(self.folder).as_posix()
        for part in list(self._parts.values()):
            if any(file.path == inside or file.path.startswith(f"{inside}/") for file in part.files):
                self._drop(part)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)

    def keep(self, step: Step, *files: Path, value: str = "") -> None:
        """Write a finished part to the journal, once its files are on the disk."""
        folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.folder)}
        for path in (*files, *folders):
            sync(path)
        entries = tuple(file_entry(file, self.folder) for file in sorted(files))
        parts = self._parts | {step.key: Part(name=step.name, key=step.key, files=entries, value=value)}
        write_parts(self.folder, parts.values())
        self._parts = parts
        self._used[step.key] = False
        self._aside.discard(step.key)

    def mark(self) -> frozenset[str]:
        """The keys of the parts used so far, for `set_aside`."""
        return frozenset(self._used)

    def set_aside(self, mark: frozenset[str]) -> None:
        """Leave the parts used since the mark out of the bundle, unless they are used once more."""
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
            RoomError: the disk is full.

        """
        publish(self.folder, self._output)
        self._published = True

    def _wanted(self) -> list[str]:
        return [key for key in self._used if key not in self._aside]

    def _copied(self, step: Step) -> Part | None:
        part = self._reusable.get(step.key)
        if part is None or self._reuse is None:
            return None
        copies = []
        for file in part.files:
            copy = self.folder / file.path
            self.clear(copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                copies.append(Path(shutil.copyfile(self._reuse / file.path, copy)))
        self.keep(step, *copies, value=part.value)
        if self._parts[step.key].files == part.files:
            return part
        self._drop(self._parts[step.key])
        return None

    def _drop(self, part: Part) -> None:
        """Forget a part before its files go: the journal never names a file that is not there."""
        del self._parts[part.key]
        self._used.pop(part.key, None)
        write_parts(self.folder, self._parts.values())
        for file in part.files:
            (self.folder / file.path).unlink(missing_ok=True)

    def _remove_unclaimed(self) -> None:
        claimed = {self.folder / file.path for part in self._parts.values() for file in part.files}
        claimed.add(self.folder / JOURNAL)
        for path in sorted(self.folder.rglob("*"), reverse=True):  # the files of a folder before the folder
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.rmdir()  # if it is empty
            elif path not in claimed:
                path.unlink()


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())


def _failure(error: BaseException | None, output: Path) -> EdgeError | None:
    """The error to raise instead, where the system refused to write, to read, or to give memory."""
    cause = error
    while cause:
        if isinstance(cause, MemoryError):
            return _no_room("memory", "none left")
        refusal = _refusal(cause, bare=cause is error)
        if refusal:
            full = refusal.errno in NO_ROOM
            return _no_room(f"the disk of {output}", str(refusal)) if full else unwritable(output, refusal)
        cause = cause.__cause__
    return None


def _refusal(error: BaseException, *, bare: bool) -> OSError | None:
    """The system's refusal that an exception is, or reports.

    Libraries raise OSError for bad input too, without a number, and those in Rust an Exception with the number in it.
    """
    if isinstance(error, OSError):
        return error if bare or error.errno else None
    number = None if isinstance(error, EdgeError) else _RUST.search(str(error))
    return OSError(int(number[1]), str(error)) if number else None


def _no_room(where: str, found: str) -> RoomError:
    return RoomError(
        where,
        found=found,
        expected="room for the rest; --dry-run says how much",
        fix="Make room, then export again: finished parts are used again.",
    )


def _without_scratch(part: Part) -> Part:
    files = tuple(file for file in part.files if not file.path.startswith(f"{SCRATCH}/"))
    return part.model_copy(update={"files": files})
