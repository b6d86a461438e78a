"""What is installed: the packages that every device needs, the extras, and the providers of onnxruntime."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Final

from dualtune_edge.profiles import plugins
from dualtune_edge.runtime.doctor.finding import Findings
from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.extras import DISTRIBUTION, Requirement

EXTRAS: Final = ("agent", "serve", "otel", "trust", "genai")  # of a device; providers are asked themselves
_LIBRARIES: Final = ("numpy", "onnxruntime", "tokenizers", "llguidance")  # compiled: installed, they may still not load
_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)*")


def examine_packages(findings: Findings) -> bool:
    """Whether what every device needs is installed and loads."""
    required = [package for package in extras.requirements() if package.extra is None]
    faults = list(_faults(required))
    for library in _LIBRARIES:
        try:
            importlib.import_module(library)
        except Exception as error:  # noqa: BLE001 - a library that does not load may raise anything
            faults.append(f"{library} does not load: {(str(error).splitlines() or [type(error).__name__])[0]}")
    if faults:
        expected = "the packages that it declares, each of which loads"
        fix = f"Run: pip install --force-reinstall {DISTRIBUTION}"
        findings.wrong("packages", "; ".join(dict.fromkeys(faults)), expected=expected, fix=fix)
        return False
    onnxruntime = metadata.version("onnxruntime")
    findings.ok("packages", f"all {len(required)} that a device needs; onnxruntime {onnxruntime}")
    return True


def examine_extras(findings: Findings) -> None:
    """Which extras are installed. One that is not there is no fault; one whose packages are too old is."""
    packages = list(extras.requirements())
    present, absent = [], []
    for extra in EXTRAS:
        required = [package for package in packages if package.extra == extra]
        faults = list(_faults(required))
        if not faults:
            present.append(extra)
        elif any("is not installed" in fault for fault in faults):
            absent.append(extra)
        else:
            fix = f"Run: pip install --upgrade '{DISTRIBUTION}[{extra}]'"
            findings.wrong("extras", "; ".join(faults), expected=f"what the extra `{extra}` declares", fix=fix)
    lacking = f"; not installed: {', '.join(absent)}" if absent else ""
    findings.ok("extras", f"{', '.join(present) or 'none'}{lacking}")


def examine_providers(findings: Findings) -> None:
    """How the providers that come as packages stand here."""
    states = plugins.states()
    for state in states:
        if state.version and state.problem:
            findings.note("provider", f"{state.provider}: {state.problem}", fix=state.fix)
        elif state.version:
            devices = ", ".join(device.kind for device in state.devices)
            findings.ok("provider", f"{state.provider} {state.version}, on {devices}")
    absent = ", ".join(state.provider for state in states if not state.version)
    findings.ok("providers", f"CPUExecutionProvider{f'; not installed: {absent}' if absent else ''}")


def older(version: str, least: str) -> bool:
    """Whether a version is below another, by its numbers: 1.9.2+cpu is below 1.10."""
    return _numbers(version) < _numbers(least)


def _faults(required: Iterable[Requirement]) -> Iterator[str]:
    for package in required:
        try:
            version = metadata.version(package.name)
        except metadata.PackageNotFoundError:
            yield f"{package.name} is not installed"
            continue
        if package.least and older(version, package.least):
            yield f"{package.name} {version} is older than {package.least}"


def _numbers(version: str) -> tuple[int, ...]:
    match = _NUMBERS.match(version)
    numbers = [int(number) for number in match[0].split(".")] if match else [0]
    while numbers and not numbers[-1]:  # 2 and 2.0 are one version
        numbers.pop()
    return tuple(numbers)
