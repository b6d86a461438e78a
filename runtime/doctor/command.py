"""`dualtune-edge doctor`."""

from __future__ import annotations

import platform
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer

from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import Machine
from dualtune_edge.runtime.doctor.finding import Finding, Findings
from dualtune_edge.runtime.doctor.installation import examine_extras, examine_packages, examine_providers
from dualtune_edge.runtime.doctor.machine import examine_cache, examine_machine, examine_profiles, examine_trust
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.extras import DISTRIBUTION
from dualtune_edge.toolkit.frozen import Frozen

WRONG: Final = 23  # exit code: something is wrong
_INDENT: Final = 20  # columns before what was found
_COLOURS: Final = {"ok": "green", "note": "yellow", "wrong": "red"}


class Diagnosis(Frozen):
    """What `doctor --json` prints. `fit`: nothing is wrong."""

    version: str
    python: str
    machine: Machine
    bundle: str | None  # its path
    fit: bool
    findings: tuple[Finding, ...]


def doctor(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="A bundle's folder, or a store; without it, the machine.")
    ] = None,
    *,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A profile's name or .toml file; default: $DUALTUNE_EDGE_PROFILE, or the best."
        ),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", metavar="FILE", help="Whose signature it must have; default: $DUALTUNE_EDGE_TRUST."),
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Tell whether this machine, and a bundle on it, are fit to run.

    Each line is ok, a note (it works, with a loss or a risk) or wrong, and says what to do. With BUNDLE every file is
    hashed, the model is opened as `call` opens it, and a token is computed. Ends with 0, or with 23 if a line is wrong.

    Example:
        dualtune-edge doctor my-bundle

    """
    findings, machine = Findings(), detect()
    findings.ok(
        DISTRIBUTION, f"{metadata.version(DISTRIBUTION)} on Python {platform.python_version()}, {sys.executable}"
    )
    examine_machine(findings, machine)
    loads = examine_packages(findings)
    examine_extras(findings)
    examine_cache(findings)
    examine_trust(findings, trust)
    if loads:
        examine_providers(findings)
        if bundle is None:
            examine_profiles(findings, machine, profile)
        else:
            from dualtune_edge.runtime.doctor.bundle import examine_bundle  # what it imports was seen to load

            examine_bundle(findings, bundle, machine, trust=trust, profile=profile)
    fit = all(line.state != "wrong" for line in findings.lines)
    report = Diagnosis(
        version=metadata.version(DISTRIBUTION),
        python=platform.python_version(),
        machine=machine,
        bundle=None if bundle is None else str(bundle),
        fit=fit,
        findings=tuple(findings.lines),
    )
    console.result(report, "\n".join(_lines(report.findings)), as_json=as_json)
    if not fit:
        raise typer.Exit(WRONG)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    width = max(console.width(), 2 * _INDENT)
    for finding in findings:
        state = typer.style(f"{finding.state:<5}", fg=_COLOURS[finding.state], bold=finding.state == "wrong" or None)
        expected = f"; expected {finding.expected}" if finding.expected else ""
        said = textwrap.wrap(f"{finding.found}{expected}", width - _INDENT) or [""]
        yield f"{state} {finding.about:<14}{said[0]}"
        yield from (f"{'':<{_INDENT}}{line}" for line in said[1:])
        if finding.fix:
            yield from (f"{'':<{_INDENT}}{line}" for line in textwrap.wrap(finding.fix, width - _INDENT))
    wrong = sum(finding.state == "wrong" for finding in findings)
    notes = sum(finding.state == "note" for finding in findings)
    yield f"{wrong or 'nothing is'} wrong, {notes} note{'' if notes == 1 else 's'}"
