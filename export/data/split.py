"""Lines into parts, by conversation: no request stands in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dualtune_edge.export.data.lines import Line
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.files import published_folder
from dualtune_edge.toolkit.frozen import Frozen

PARTS: Final = ("train", "validation", "heldout")
SHARES: Final = (80, 10, 10)


class Part(Frozen):
    """A part's file, its lines, and how many different requests these have."""

    file: str
    lines: int
    requests: int


class Split(Frozen):
    """What `data split --json` prints."""

    folder: str
    parts: tuple[Part, ...]


def split(lines: Sequence[Line], shares: Sequence[float], seed: int) -> list[list[Line]]:
    """The lines of each part, in the file's order.

    Which part a request goes to follows from the seed and the requests themselves, not from their order.

    Args:
        lines: all of them.
        shares: of the parts, of their sum.
        seed: another one draws other parts.

    Raises:
        DataError: fewer requests than parts.

    """
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.request, []).append(line)
    wanted = [number for number, share in enumerate(shares) if share]
    if len(groups) < len(wanted):
        raise DataError(
            "the data", found=f"{len(groups)} different requests", expected=f"{len(wanted)} or more", fix="Add some."
        )
    parts: list[list[Line]] = [[] for _ in shares]
    drawn = sorted(groups, key=lambda request: hashlib.sha256(f"{seed}\n{request}".encode()).digest())
    for request in drawn:
        # The part that is furthest behind its share: an empty one first, so none stays empty.
        part = min(wanted, key=lambda number: len(parts[number]) / shares[number])
        parts[part] += groups[request]
    places = {line.where: number for number, line in enumerate(lines)}
    return [sorted(part, key=lambda line: places[line.where]) for part in parts]


def write_parts(parts: Sequence[Sequence[Line]], folder: Path) -> Split:
    """Write a file for each part that is not empty, its lines unchanged, into a new folder.

    Raises:
        OutputError: something is there, or it cannot be written.

    """
    written = []
    with published_folder(folder) as workspace:
        for name, part in zip(PARTS, parts, strict=True):
            if part:
                text = "".join(f"{line.text.strip()}\n" for line in part)
                (workspace / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
                requests = len({line.request for line in part})
                written.append(Part(file=f"{name}.jsonl", lines=len(part), requests=requests))
    return Split(folder=str(folder), parts=tuple(written))
