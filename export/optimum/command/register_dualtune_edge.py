# ruff: noqa: INP001 - Optimum's namespace package must not have an __init__.py
"""`optimum-cli export dualtune-edge …`: Optimum imports what is in this namespace package, and takes what it lists.

Source: optimum/commands/optimum_cli.py, `load_optimum_namespace_cli_commands`.
"""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class DualTuneEdgeCommand(BaseOptimumCLICommand):  # type: ignore[misc]  # Optimum has no types
    """`dualtune-edge export` under Optimum's name: it gets every argument as it is, `--help` too."""

    COMMAND = CommandInfo(name="dualtune-edge", help="Compile a base model and its LoRA adapters into a bundle.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Leave all to the command itself: without a character that begins an option, everything is an argument."""
        parser.prefix_chars = "\0"
        parser.add_argument("arguments", nargs=REMAINDER)

    def run(self) -> None:
        """Run it. Ends in `SystemExit`."""
        from dualtune_edge.cli import main  # noqa: PLC0415 - Optimum imports this module for every command

        main(["export", *self.args.arguments])


REGISTER_COMMANDS = [(DualTuneEdgeCommand, ExportCommand)]
