"""The command line's shell: a table of commands in, one command run.

A command's function is a plain one with typer's annotations, beside the feature. Its docstring is the help: the first
line stands in the table too, and an `Example:` section ends it. A group of commands is a `typer.Typer`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from types import FrameType, ModuleType
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import typer

from dualtune_edge.toolkit import console, extras
from dualtune_edge.toolkit.errors import EdgeError, FileError

PROGRAM: Final = "dualtune-edge"
_INTERRUPTED: Final = 130  # by convention 128 and the signal's number
_TERMINATED: Final = 143
_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}  # of every command


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
        with _signals():
            application(commands, arguments[:1] or _completed())(args=arguments, prog_name=PROGRAM)
    except EdgeError as error:
        _print_error(error, as_json="--json" in arguments)
        raise SystemExit(error.exit_code) from None
    except ModuleNotFoundError as error:
        lacking = extras.missing(error, f"{PROGRAM} {' '.join(arguments[:1])}")
        if lacking is None:
            raise
        _print_error(lacking, as_json="--json" in arguments)
        raise SystemExit(lacking.exit_code) from None
    except BrokenPipeError:  # who reads the output went away
        raise
    except OSError as error:
        named = _file_error(error)
        _print_error(named, as_json="--json" in arguments)
        raise SystemExit(named.exit_code) from None


def _file_error(error: OSError) -> FileError:
    """An error of the system's that no command has made its own."""
    return FileError(
        str(error.filename or "a file"),
        found=error.strerror or str(error) or type(error).__name__,
        expected="a file that the system lets be read and written",
        fix="Check the disk, and the file's permissions; then try again.",
    )


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """While it is open, Ctrl-C and SIGTERM end the process in order: with a word, and a code of their own."""
    before = signal.signal(signal.SIGTERM, _terminate) if _in_main_thread() else None
    try:
        yield
    except _Terminated:
        console.echo(f"{PROGRAM}: terminated", err=True)
        raise SystemExit(_TERMINATED) from None
    except KeyboardInterrupt:  # while a command's packages are imported
        _interrupted()
        raise SystemExit(_INTERRUPTED) from None
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # later typer makes this of it
            _interrupted()
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM arrived. No `except Exception` holds it up; what cleans up does so on the way."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    raise _Terminated


def _interrupted() -> None:
    if _in_main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C does not wait for threads that still work
    console.echo(f"{PROGRAM}: interrupted", err=True)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _completed() -> list[str]:
    """The command whose flags a shell asks for, as its completion script passes the line."""
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return words.split()[1:2]


def application(commands: Commands, imported: Sequence[str]) -> typer.Typer:
    """The whole command line, with the functions of the `imported` commands only; the others show their summary."""
    app = typer.Typer(
        rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True, context_settings=_SETTINGS
    )
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
    app = typer.Typer(help=summary, rich_markup_mode=None, no_args_is_help=True, context_settings=_SETTINGS)
    for function in functions:
        _add(app, function.__name__.rstrip("_"), function)
    return app


def _add(app: typer.Typer, name: str, command: typer.Typer | Callable[..., Any]) -> None:
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
        return
    text, example = help_and_example(command)
    app.command(name, help=text, epilog=example, no_args_is_help=False, context_settings=_SETTINGS)(command)


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


def _print_error(error: EdgeError, *, as_json: bool) -> None:
    parts = {"type": type(error).__name__, "where": error.where, "found": error.found}
    parts |= {"expected": error.expected, "fix": error.fix}
    if as_json:
        typer.echo(json.dumps({"error": parts}, ensure_ascii=False))
    else:
        word = typer.style("error:", fg="red", bold=True)
        console.echo(f"{word} {error.where}: found {error.found}; expected {error.expected}.\n{error.fix}", err=True)
