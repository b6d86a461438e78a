"""What a command writes: its one result on stdout, everything else on stderr."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def result(value: BaseModel, text: str, *, as_json: bool) -> None:
    """Write a command's one result on stdout: `value` as JSON in one line, or `text` for a reader."""
    typer.echo(value.model_dump_json() if as_json else text)


def warn(text: str) -> None:
    """Write a warning on stderr; with `--json` too."""
    typer.echo(f"warning: {text}", err=True)
