"""Writes docs/cli.md from the commands' own help; `make docs` runs it and a test compares."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import typer.main

from dualtune_edge import cli
from dualtune_edge.toolkit import shell

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """# The command line

Every command takes `--json` and then prints one JSON object on stdout; progress and warnings go to stderr.
Errors and their exit codes: [errors.md](errors.md). This page is made from the help by `make docs`.
"""


def page() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = "100"  # the help wraps at the terminal's width
    sections = (f"## {' '.join((shell.PROGRAM, *words))}\n\n```text\n{help_of(words)}```\n" for words in paths())
    return "\n".join((INTRODUCTION, *sections))


def paths() -> Iterator[tuple[str, ...]]:
    """Every command by the words that call it."""
    yield ()
    root = typer.main.get_command(shell.application(cli.COMMANDS, list(cli.COMMANDS)))
    for name in cli.COMMANDS:
        yield (name,)
        for inner in getattr(root.commands[name], "commands", {}):  # type: ignore[attr-defined]
            yield (name, inner)


def help_of(words: tuple[str, ...]) -> str:
    """What `--help` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return text.getvalue()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
