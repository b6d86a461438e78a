"""What a command writes: its one result on stdout, everything else on stderr."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer
from pydantic import BaseModel

from dualtune_edge.toolkit.files import unwritable

_WIDTH: Final = 160  # characters of a line where there is no terminal
_FOLDED: Final = 12  # characters: a column is not made narrower
_GAP: Final = "  "
_STYLE: Final = re.compile(r"(\x1b\[(?:[0134]|3[0-7])(?:;3[0-7])?m)")  # bold and colours, and nothing that hides
_BLANK: Final = "Zs"  # blanks of all kinds, which `isprintable` is against
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def result(value: BaseModel, text: str, *, as_json: bool) -> None:
    """Write a command's one result on stdout: `value` as JSON in one line, or `text` for a reader.

    Raises:
        OutputError: it cannot be written, as to a file on a full disk.

    """
    try:
        if as_json:
            typer.echo(value.model_dump_json())
        else:
            echo(text)
    except BrokenPipeError:  # its reader went away
        raise
    except OSError as error:
        sys.stdout = sys.stderr  # for the error; and what could not be written is not tried again at the end
        raise unwritable(Path("stdout"), error) from None


def warn(text: str) -> None:
    """Write a warning on stderr; with `--json` too."""
    echo(f"{typer.style('warning:', fg='yellow', bold=True)} {text}", err=True)


def echo(text: str, *, err: bool = False) -> None:
    """Write a text; its bold and colours only on a terminal, unless NO_COLOR or TERM forbids them.

    All else that controls a terminal is written as an escape: bundles, messages and file names are other people's.
    """
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    parts = _STYLE.split(text)
    shown = "".join(part if _STYLE.fullmatch(part) else printable(part, keep="\n\t") for part in parts)
    # Named, since typer by itself writes below the stream that a bar of rich puts in its place.
    typer.echo(shown, sys.stderr if err else None, err=err, color=False if plain else None)


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str]) -> list[str]:
    """Rows below their columns' names, as wide as the terminal; on a narrow one a line for each cell.

    Texts are not read as markup: a tool's name may look like rich's markup.
    """
    cells = [tuple(row) for row in rows]
    widest = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    if width() < sum(min(size, _FOLDED) + len(_GAP) for size in widest):
        return _records(columns, cells)
    return _table(columns, cells, left, width())


def width() -> int:
    """Characters of a line: the terminal's, or where there is none a fixed number."""
    return shutil.get_terminal_size(fallback=(_WIDTH, 24)).columns


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[str], size: int) -> list[str]:
    from rich.console import Console  # noqa: PLC0415 - `call`, which is to be quick, prints no table
    from rich.table import Table  # noqa: PLC0415

    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold" if terminal else "none")
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()  # `capture` would write to stdout too, if nothing
    console = Console(
        file=text, width=size, force_terminal=terminal, no_color=True, highlight=False, markup=False, emoji=False
    )
    console.print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def _records(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    label = max(map(len, columns))
    lines: list[str] = []
    for row in rows:
        cells = ((name, cell) for name, cell in zip(columns, row, strict=True) if cell)
        lines += ["", *(f"{name:<{label}}{_GAP}{cell}" for name, cell in cells)]
    return lines[1:]


def printable(text: str, keep: str = "") -> str:
    """The text with control and formatting characters as escapes: it cannot move a cursor or turn a line around."""
    return "".join(
        character
        if character.isprintable() or character in keep or unicodedata.category(character) == _BLANK
        else character.encode("unicode_escape").decode()
        for character in text
    )
