"""The journal of an export: its finished parts, and their files with size and SHA-256."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from dualtune_edge.runtime.bundle.checks import is_plain
from dualtune_edge.toolkit.bundle.manifest import FileEntry
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.files import replace_file, sha256_file
from dualtune_edge.toolkit.frozen import Frozen

JOURNAL: Final = "export.json"


@dataclass(frozen=True)
class Step:
    """A part by its name and by the SHA-256 of all that it is made of."""

    name: str
    key: str


class Part(Frozen):
    """A finished part. `value`: a result that is no file."""

    name: str
    key: str
    files: tuple[FileEntry, ...] = ()
    value: str = ""

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    def is_whole(self, folder: Path) -> bool:
        """Whether its files in the folder are still the finished ones."""
        return all(_is(folder / file.path, file) for file in self.files)


class Journal(Frozen):
    """The whole of `export.json`."""

    parts: tuple[Part, ...] = ()


def file_entry(file: Path, folder: Path) -> FileEntry:
    """Path, size and hash of a file in a folder."""
    return FileEntry(path=file.relative_to(folder).as_posix(), size=file.stat().st_size, sha256=sha256_file(file))


def read_parts(folder: Path) -> dict[str, Part]:
    """Parts by key; none where the journal is missing, damaged, or another version's.

    Raises:
        OSError: it cannot be read.

    """
    try:
        journal = Journal.model_validate_json((folder / JOURNAL).read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}
    return {part.key: part for part in journal.parts if all(is_plain(file.path) for file in part.files)}


def write_parts(folder: Path, parts: Iterable[Part]) -> None:
    """Replace the journal: at every moment the old one or the new one is there, whole.

    Raises:
        OSError: it cannot be written.

    """
    journal = Journal(parts=tuple(sorted(parts, key=lambda part: (part.name, part.key))))
    replace_file(folder / JOURNAL, (journal.model_dump_json() + "\n").encode())


def parts_of(bundle: Path) -> dict[str, Part]:
    """Parts of a finished bundle by key.

    Raises:
        SpecError: it has none.

    """
    try:
        parts, found = read_parts(bundle), f"no {JOURNAL} that names finished parts"
    except OSError as error:
        parts, found = {}, str(error)
    if not parts:
        raise SpecError(
            str(bundle),
            found=found,
            expected="a bundle that `export` wrote",
            fix="Name another bundle, or export without --reuse.",
        )
    return parts


def _is(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.size and sha256_file(path) == entry.sha256
    except OSError:
        return False
