"""What a command writes: its one result on stdout, everything else on stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

from dualtune_edge.toolkit.files import unwritable

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def result(value: BaseModel, text: str, *, as_json: bool) -> None:
    """Write a command's one result on stdout: `value` as JSON in one line, or `text` for a reader.

    Raises:
        OutputError: it cannot be written, as to a file on a full disk.

    """
    try:
        typer.echo(value.model_dump_json() if as_json else text)
    except BrokenPipeError:  # its reader went away
        raise
    except OSError as error:
        sys.stdout = sys.stderr  # for the error; and what could not be written is not tried again at the end
        raise unwritable(Path("stdout"), error) from None


def warn(text: str) -> None:
    """Write a warning on stderr; with `--json` too."""
    typer.echo(f"warning: {text}", err=True)


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[str]) -> list[str]:
    """Rows below their columns' names. Texts stand as they are: a tool's name may look like rich's markup."""
    from rich.console import Console  # noqa: PLC0415 - `call`, which is to be quick, prints no table
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()  # `capture` would write to stdout too, if nothing
    Console(file=text, width=160, no_color=True, highlight=False, markup=False, emoji=False).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def printable(text: str, keep: str = "") -> str:
    """The text with control and formatting characters as escapes: it cannot move a cursor or turn a line around."""
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )
