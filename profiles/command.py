"""`dualtune-edge profiles list | show | detect`."""

from __future__ import annotations

from typing import Annotated

import typer

from dualtune_edge.profiles import catalog, plugins
from dualtune_edge.profiles.detect import detect as detect_machine
from dualtune_edge.profiles.detect import ep_devices
from dualtune_edge.profiles.plugins import PluginState
from dualtune_edge.profiles.resolve import Candidate, Reason, Resolution, candidates, resolve
from dualtune_edge.profiles.schema import EpDevice, HardwareProfile, Machine
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.shell import group


class ProfileList(Frozen):
    """What `profiles list --json` prints."""

    profiles: tuple[HardwareProfile, ...]


class Detection(Frozen):
    """What `profiles detect --json` prints."""

    machine: Machine
    devices: tuple[EpDevice, ...]
    profile: str
    settings: tuple[Reason, ...]
    warnings: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    providers: tuple[PluginState, ...]


def list_(*, as_json: console.AsJson = False) -> None:
    """List the profiles of this package; a * marks those that can be followed here.

    Example:
        dualtune-edge profiles list

    """
    known = catalog.profiles()
    usable = {candidate.profile for candidate in candidates(detect_machine()) if candidate.usable}
    rows = [f"{'*' if profile.name in usable else ' '} {profile.name:<20} {profile.description}" for profile in known]
    console.result(ProfileList(profiles=known), "\n".join(rows), as_json=as_json)


def show(
    profile: Annotated[str, typer.Argument(metavar="NAME", help="A profile's name, or the path of a .toml file.")],
    *,
    as_json: console.AsJson = False,
) -> None:
    """Show one profile: what it needs, and each setting with its reason.

    Example:
        dualtune-edge profiles show cpu-x64

    """
    chosen = catalog.load(profile)
    console.result(chosen, _describe(chosen), as_json=as_json)


def detect(
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Settle this profile (a name or a .toml file) instead of $DUALTUNE_EDGE_PROFILE or the best.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Use so many threads, whatever the profile says.")] = None,
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell of every profile and provider why, or why not.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Tell what this machine has, and how models will run on it, each setting with its reason.

    Example:
        dualtune-edge profiles detect --explain

    """
    machine, providers = detect_machine(), plugins.states()
    devices = ep_devices()  # once the providers' libraries are registered
    asked = catalog.asked_for(profile)
    resolution = resolve(catalog.load(asked) if asked else None, machine, threads=threads)
    for warning in resolution.warnings:
        console.warn(warning)
    report = Detection(
        machine=machine,
        devices=devices,
        profile=resolution.profile.name,
        settings=resolution.reasons,
        warnings=resolution.warnings,
        candidates=candidates(machine),
        providers=providers,
    )
    text = _report(machine, devices, resolution)
    console.result(report, f"{text}\n{_explain(report)}" if explain else text, as_json=as_json)


profiles = group("Show hardware profiles, and which one fits here.", (list_, show, detect))


def _describe(profile: HardwareProfile) -> str:
    rows = (
        f"{profile.name}: {profile.description}",
        f"needs           {profile.architecture} with {', '.join(profile.features)}",
        f"runs by         {profile.provider} on the {profile.device}",
        *(f"{name:<16}{value:<10} {profile.why.get(name, '')}".rstrip() for name, value in profile.settings.items()),
    )
    return "\n".join(rows)


def _explain(report: Detection) -> str:
    rows = [
        "",
        *(
            f"{'* ' if candidate.usable else '  '}{candidate.profile:<20} {candidate.why}"
            for candidate in report.candidates
        ),
        "",
        *map(_standing, report.providers),
    ]
    return "\n".join(rows)


def _standing(provider: PluginState) -> str:
    if provider.problem:
        state = f"{provider.problem}. {provider.fix}".rstrip(". ")
    else:
        state = f"version {provider.version}, on {', '.join(device.kind for device in provider.devices)}"
    used = any(profile.provider == provider.provider for profile in catalog.profiles())
    return f"  {provider.provider:<26} {state}{'' if used else '; no profile of this version uses it'}"


def _report(machine: Machine, devices: tuple[EpDevice, ...], resolution: Resolution) -> str:
    cpu = machine.cpu
    asked = {feature for profile in catalog.profiles() for feature in profile.features}
    used = [feature for feature in cpu.features if feature in asked]
    memory = f", {cpu.memory / 2**30:.1f} GiB of memory" if cpu.memory else ""
    rows = (
        f"machine         {machine.system} on {machine.architecture}: {cpu.name or 'a CPU without a name'}",
        f"cores           {cpu.physical_cores} physical, {cpu.logical_cores} logical{memory}",
        f"features        {', '.join(used) or 'none that a profile asks for'}",
        *(f"device          {device.kind} of {device.vendor} by {device.provider}" for device in devices),
        *(f"{reason.setting:<16}{reason.value:<20} {reason.why}" for reason in resolution.reasons),
    )
    return "\n".join(rows)
