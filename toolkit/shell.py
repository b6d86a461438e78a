"""The command line's shell: a table of commands in, one command run.

A command's function is a plain one with typer's annotations, beside the feature. Its docstring is the help: the first
line stands in the table too, and an `Example:` section ends it. A group of commands is a `typer.Typer`.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from types import ModuleType
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import typer

from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.errors import EdgeError

PROGRAM: Final = "dualtune-edge"
_INTERRUPTED: Final = 130  # by convention 128 and the number of SIGINT


class Row(NamedTuple):
    """Where a command's function is, and what it does in a line: `--help` imports none of them."""

    module: str
    function: str
    summary: str


Commands: TypeAlias = Mapping[str, Row]  # by name
_SECTIONS: Final = re.compile(r"\n\n(?=(?:Example|Examples|Args|Returns|Raises):\n)")  # of Google's docstrings


def run(commands: Commands, argv: Sequence[str] | None = None) -> None:
    """Run one command. Ends in `SystemExit`: 0, 2 for wrong flags, or the error's own code (docs/errors.md)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # a pipe on Windows has the code page's encoding, which lacks letters
    try:
        application(commands, arguments[:1])(args=arguments, prog_name=PROGRAM)
    except EdgeError as error:
        _tell(error, as_json="--json" in arguments)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:  # while a command's packages are imported; later it is the shell's
        raise SystemExit(_INTERRUPTED) from None
    except ModuleNotFoundError as error:
        lacking = extras.missing(error, f"{PROGRAM} {' '.join(arguments[:1])}")
        if lacking is None:
            raise
        _tell(lacking, as_json="--json" in arguments)
        raise SystemExit(lacking.exit_code) from None


def application(commands: Commands, imported: Sequence[str]) -> typer.Typer:
    """The whole command line, with the functions of the `imported` commands only; the others show their summary."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)
    app.callback(help="LoRA adapters in, tool calls out, on a CPU.")(_root)
    for name, row in commands.items():
        if name in imported:
            _add(app, name, getattr(_imported(row.module), row.function))
        else:
            app.command(name, help=row.summary)(_not_imported)
    return app


def _imported(module: str) -> ModuleType:
    """PyTorch and its like make a million objects that stay: looking for garbage among them takes long."""
    if module in sys.modules:
        return sys.modules[module]
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def help_and_example(function: Callable[..., Any]) -> tuple[str, str | None]:
    r"""A docstring as help, and its example as epilog; `\b` keeps click from wrapping the lines after it."""
    head, *sections = _SECTIONS.split(inspect.getdoc(function) or "")
    example = next((section for section in sections if section.startswith("Example")), None)
    return head, example and f"\b\n{example}"


def group(summary: str, functions: Sequence[Callable[..., Any]]) -> typer.Typer:
    """A command of commands, each named as its function is (without underscores at the end)."""
    app = typer.Typer(help=summary, rich_markup_mode=None, no_args_is_help=True)
    for function in functions:
        _add(app, function.__name__.rstrip("_"), function)
    return app


def _add(app: typer.Typer, name: str, command: typer.Typer | Callable[..., Any]) -> None:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
        return
    text, example = help_and_example(command)
    app.command(name, help=text, epilog=example, no_args_is_help=False)(command)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {metadata.version(PROGRAM)}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


def _not_imported() -> None:
    raise AssertionError("a command that is called is imported")  # pragma: no cover


def _tell(error: EdgeError, *, as_json: bool) -> None:
    parts = {"type": type(error).__name__, "where": error.where, "found": error.found}
    parts |= {"expected": error.expected, "fix": error.fix}
    if as_json:
        typer.echo(json.dumps({"error": parts}, ensure_ascii=False))
    else:
        typer.echo(f"error: {error.where}: found {error.found}; expected {error.expected}.\n{error.fix}", err=True)
