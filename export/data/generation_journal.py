"""The journal of a run that makes data: what the teacher has answered is paid for, and kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dualtune_edge.export.data.teacher import Usage
from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.files import unwritable
from dualtune_edge.toolkit.frozen import Frozen


class Entry(Frozen):
    """A finished part of a run: requests that were written, or a conversation that was held."""

    part: str
    requests: tuple[str, ...] = ()
    line: dict[str, Any] | None = None  # as `finetune` reads it; None: nothing that could be learnt
    calls: int = 0  # of the line, that are learnt
    why: str = ""  # there is no line
    usage: Usage = Usage()


class _Head(Frozen):
    origin: str


class Journal:
    """Entries on disk, one a line, each there before the next one begins.

    A last line without its end is of a run that was killed; its part is done again.
    """

    def __init__(self, path: Path, origin: str) -> None:
        """Read the journal, or begin one; `origin` is of what the run is made from.

        Raises:
            OutputError: it is the journal of another run, or cannot be read or written.

        """
        self.path, self.entries, self._origin = path, dict[str, Entry](), origin
        try:
            data = path.read_bytes() if path.exists() else b""
            lines = data.split(b"\n")[:-1]
            if lines:
                self._read(lines)
            if data:
                os.truncate(path, data.rfind(b"\n") + 1)
        except OSError as error:
            raise unwritable(path, error) from None

    def add(self, entry: Entry) -> None:
        """Keep an entry.

        Raises:
            OutputError, RoomError: it cannot be written.

        """
        try:
            with self.path.open("ab") as file:
                if not file.tell():
                    file.write(_Head(origin=self._origin).model_dump_json().encode() + b"\n")
                file.write(json.dumps(entry.model_dump(mode="json"), ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from None
        self.entries[entry.part] = entry

    def _read(self, lines: list[bytes]) -> None:
        try:
            head = _Head.model_validate_json(lines[0])
            entries = [Entry.model_validate_json(line) for line in lines[1:]]
        except ValueError:
            raise self._foreign("no journal of this version") from None
        if head.origin != self._origin:
            raise self._foreign("the journal of a run with other servers, tools, teacher, files or settings")
        self.entries = {entry.part: entry for entry in entries}

    def _foreign(self, found: str) -> OutputError:
        return OutputError(
            str(self.path),
            found=found,
            expected="that of this run, or none",
            fix="Give the command of that run to go on with it, or remove the file.",
        )
