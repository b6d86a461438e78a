"""The systemd unit starts the command as it is; .ci/debian installs the packages."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from dualtune_edge import cli
from dualtune_edge.toolkit import shell
from dualtune_edge.toolkit.shell import _TERMINATED

UNIT = Path(__file__).parents[2] / "packaging" / "debian" / "dualtune-edge@.service"


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_units_command_and_options_exist() -> None:
    (start,), variables = settings("ExecStart"), dict(line.split("=", 1) for line in settings("Environment"))
    program, command, *arguments = start.split()
    assert (program, arguments) == ("/usr/bin/dualtune-edge", ["${BUNDLE}", "$OPTIONS"])
    known = typer.main.get_command(shell.application(cli.COMMANDS, [command])).commands[command]  # type: ignore[attr-defined]
    flags = {flag for parameter in known.params for flag in parameter.opts}
    assert {option.partition("=")[0] for option in variables["OPTIONS"].split()} <= flags


def test_its_cache_is_the_folder_that_systemd_makes_for_its_user() -> None:
    (folder,), variables = settings("CacheDirectory"), settings("Environment")
    assert f"DUALTUNE_EDGE_CACHE=/var/cache/{folder}" in variables


def test_a_stop_is_no_failure() -> None:
    assert settings("SuccessExitStatus") == [str(_TERMINATED)]
