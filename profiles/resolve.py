"""Profile + machine → session settings, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.schema import HardwareProfile, Machine, SessionSettings
from dualtune_edge.toolkit.errors import ProfileError
from dualtune_edge.toolkit.validation import listing


@dataclass(frozen=True)
class Reason:
    """One setting, its value and why it has it."""

    setting: str
    value: str
    why: str


@dataclass(frozen=True)
class Resolution:
    """How to run on one machine; `warnings` tell where the profile does not fit it."""

    profile: HardwareProfile
    settings: SessionSettings
    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...] = ()


def resolve(profile: HardwareProfile | None, machine: Machine, *, threads: int | None = None) -> Resolution:
    """Settle every setting for `machine`; no `profile`: the one that fits best; `threads` beats any profile.

    Raises:
        ProfileError: none was given and none is for this architecture; or `threads` is not positive.

    """
    if profile is None:
        profile, why_profile = _best(machine)
    else:
        why_profile = "asked for"
    wishes, said_by = profile.session, f"profile {profile.name} says so"
    count, why_threads = _threads(profile, machine, threads)
    quantization = (
        Reason(name, str(value), getattr(profile.why, name) or said_by) for name, value in profile.quantization
    )
    return Resolution(
        profile=profile,
        settings=SessionSettings(intra_op_threads=count, spinning=wishes.spinning),
        reasons=(
            Reason("profile", profile.name, why_profile),
            Reason("threads", str(count), why_threads or said_by),
            Reason("spinning", "on" if wishes.spinning else "off", profile.why.spinning or said_by),
            *quantization,
        ),
        warnings=misfits(profile, machine),
    )


def misfits(profile: HardwareProfile, machine: Machine) -> tuple[str, ...]:
    """Why `profile` is not for `machine`, one sentence each; empty if it is."""
    if profile.architecture != machine.architecture:
        return (f"profile {profile.name} is for {profile.architecture}, this machine is {machine.architecture}",)
    missing = [feature for feature in profile.features if feature not in machine.cpu.features]
    if missing:
        return (f"profile {profile.name} needs the CPU feature {', '.join(missing)}, which this machine lacks",)
    return ()


def _best(machine: Machine) -> tuple[HardwareProfile, str]:
    """The most demanding profile that fits; if none fits, the least demanding one of the architecture. And why."""
    family = [profile for profile in catalog.profiles() if profile.architecture == machine.architecture]
    if not family:
        raise ProfileError(
            "this machine",
            found=f"architecture {machine.architecture}",
            expected=listing(sorted({profile.architecture for profile in catalog.profiles()})),
            fix="Write a profile for it (docs/profiles.md) and name its file.",
        )
    fitting = [profile for profile in family if not misfits(profile, machine)]
    if fitting:
        best = max(fitting, key=lambda profile: len(profile.features))
        return best, f"of those that fit, it uses most of this CPU: {', '.join(best.features)}"
    plainest = min(family, key=lambda profile: len(profile.features))
    return plainest, f"none fits this CPU; it is the plainest for {machine.architecture}"


def _threads(profile: HardwareProfile, machine: Machine, asked: int | None) -> tuple[int, str]:
    if asked is not None:
        if asked < 1:
            fix = "Leave it out to use every physical core."
            raise ProfileError("threads", found=str(asked), expected="1 or more", fix=fix)
        return asked, "asked for"
    if profile.session.threads != "physical":
        return profile.session.threads, profile.why.threads
    cpu = machine.cpu
    counted = f"this process may use {cpu.physical_cores} physical of {cpu.logical_cores} logical cores"
    return cpu.physical_cores, "; ".join(filter(None, (counted, profile.why.threads)))
