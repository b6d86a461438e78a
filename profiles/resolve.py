"""Profile + machine → session settings, each with its reason; where a provider is missing, the CPU's instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dualtune_edge.profiles import catalog, plugins
from dualtune_edge.profiles.plugins import PluginState
from dualtune_edge.profiles.schema import CPU_PROVIDER, HardwareProfile, Machine, SessionSettings
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ProfileError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import listing

StateOf = Callable[[str], PluginState]  # how a provider that comes as a package stands here


@dataclass(frozen=True)
class Reason:
    """One setting, its value and why it has it."""

    setting: str
    value: str
    why: str


class Candidate(Frozen):
    """A profile, whether it can run here, and why it is or is not taken unasked."""

    profile: str
    usable: bool
    why: str


@dataclass(frozen=True)
class Resolution:
    """How to run on one machine; `warnings` say where the profile does not fit it."""

    profile: HardwareProfile
    settings: SessionSettings
    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...] = ()


def resolve(
    profile: HardwareProfile | None, machine: Machine, *, threads: int | None = None, state: StateOf = plugins.state
) -> Resolution:
    """Settle every setting for `machine`.

    Args:
        profile: None: the one that fits best. One whose provider cannot be used here gives way to that one too.
        machine: where it runs.
        threads: beats any profile.
        state: how providers that come as packages stand here; asked only where `profile` names one.

    Raises:
        ProfileError: no profile is for this architecture; or `threads` is not from 1 to `limits.THREADS`.

    """
    warnings, instead = misfits(profile, machine) if profile else (), ""
    if profile is None:
        profile, why_profile = _best(machine)
        warnings = misfits(profile, machine)
    elif lacking := _lacks(profile, machine, state):
        best, _ = _best(machine)
        instead = f"profile {profile.name} cannot be followed, so profile {best.name} is: {lacking}"
        profile, why_profile, warnings = best, instead, (instead, *misfits(best, machine))
    else:
        why_profile = "asked for"
    count, why_threads = _threads(profile, machine, threads)
    settings = SessionSettings(
        intra_op_threads=count,
        spinning=profile.session.spinning,
        provider=profile.provider,
        device=profile.device,
        openvino=profile.openvino,
        instead=instead,
        weights=profile.session.weights,
    )
    return Resolution(profile, settings, _reasons(profile, settings, why_profile, why_threads), warnings)


def misfits(profile: HardwareProfile, machine: Machine) -> tuple[str, ...]:
    """Why `profile` is not for `machine`, one sentence each; empty if it is."""
    if profile.architecture != machine.architecture:
        return (f"profile {profile.name} is for {profile.architecture}, this machine is {machine.architecture}",)
    if profile.system not in {None, machine.system}:
        return (f"profile {profile.name} is for {profile.system}, this machine runs {machine.system}",)
    missing = [feature for feature in profile.features if feature not in machine.cpu.features]
    if missing and machine.cpu.unread:
        asked = ", ".join(missing)
        return (
            f"profile {profile.name} needs the CPU feature {asked}, of which nothing is known: {machine.cpu.unread}",
        )
    if missing:
        return (f"profile {profile.name} needs the CPU feature {', '.join(missing)}, which this machine lacks",)
    return ()


def candidates(machine: Machine, state: StateOf = plugins.state) -> tuple[Candidate, ...]:
    """Every profile of this package: those that fit, best first; those that run if asked for; the rest."""
    fitting = sorted(_fitting(machine), key=_demands, reverse=True)
    rows = [
        Candidate(
            profile=profile.name,
            usable=True,
            why=_uses_most(profile) if rank == 0 else "fits, and uses less of this CPU",
        )
        for rank, profile in enumerate(fitting)
    ]
    rest = [profile for profile in catalog.profiles() if profile not in fitting]
    lacking = [(profile, " ".join(misfits(profile, machine)) or _lacks(profile, machine, state)) for profile in rest]
    rows += [
        Candidate(profile=profile.name, usable=True, why="runs here if asked for: it was not measured to be faster")
        for profile, fault in lacking
        if not fault
    ]
    return (*rows, *(Candidate(profile=profile.name, usable=False, why=fault) for profile, fault in lacking if fault))


def rank(
    profiles: Sequence[HardwareProfile], machine: Machine, state: StateOf = plugins.state
) -> tuple[Candidate, ...]:
    """The profiles that a bundle was built for: those that can be followed here, best first, then the others.

    An NPU or a GPU comes before the CPU: the variant was built for it, and the CPU is left to others. On the CPU its
    own provider comes before packages, which were not measured to be faster there; then what uses more of the CPU.
    Equals keep their order.
    """
    faults = [" ".join(misfits(profile, machine)) or _lacks(profile, machine, state) for profile in profiles]
    usable = [profile for profile, fault in zip(profiles, faults, strict=True) if not fault]
    usable.sort(key=lambda profile: (_precedence(profile), _demands(profile)), reverse=True)
    return (
        *(Candidate(profile=profile.name, usable=True, why=_why_so(profile)) for profile in usable),
        *(
            Candidate(profile=profile.name, usable=False, why=fault)
            for profile, fault in zip(profiles, faults, strict=True)
            if fault
        ),
    )


def passed_over(
    profiles: Sequence[HardwareProfile], taken: HardwareProfile, machine: Machine, state: StateOf = plugins.state
) -> tuple[Candidate, ...]:
    """Those that are for this machine and would come before `taken`, were their provider there."""
    return tuple(
        Candidate(profile=profile.name, usable=False, why=fault)
        for profile in profiles
        if _precedence(profile) > _precedence(taken) and not misfits(profile, machine)
        if (fault := _lacks(profile, machine, state))
    )


def _precedence(profile: HardwareProfile) -> int:
    """How early the device of a bundle's variant is tried: the highest first."""
    return {"NPU": 3, "GPU": 2, "CPU": int(profile.provider == CPU_PROVIDER)}[profile.device]


def _why_so(profile: HardwareProfile) -> str:
    if profile.device != "CPU":
        return f"built for the {profile.device}, which {profile.provider} offers here"
    if profile.provider == CPU_PROVIDER:
        return f"for the CPU, of which it uses {', '.join(profile.features)}"
    return "runs here too, but was not measured to be faster than the CPU provider"


def _lacks(profile: HardwareProfile, machine: Machine, state: StateOf) -> str:
    """Why `profile` cannot be followed here; empty if it can: for the CPU provider any can be, if only slower."""
    if profile.provider == CPU_PROVIDER:
        return ""
    if faults := misfits(profile, machine):
        return faults[0]
    here = state(profile.provider)
    if here.problem:
        return f"{here.problem}. {here.fix}".rstrip(". ")
    kinds = sorted({device.kind for device in here.devices})
    if profile.device not in kinds:
        return f"{profile.provider} offers {', '.join(kinds)} here and no {profile.device}"
    return ""


def _reasons(
    profile: HardwareProfile, settings: SessionSettings, why_profile: str, why_threads: str
) -> tuple[Reason, ...]:
    said_by = f"profile {profile.name} says so"
    rows = [
        Reason("profile", profile.name, why_profile),
        Reason("provider", profile.provider, f"on the {profile.device}"),
        Reason("threads", str(settings.intra_op_threads), why_threads or said_by),
    ]
    others = (pair for pair in profile.settings.items() if pair[0] != "threads")
    rows += [Reason(name, value, profile.why.get(name) or said_by) for name, value in others]
    return tuple(rows)


def _fitting(machine: Machine) -> list[HardwareProfile]:
    """The CPU provider's profiles that fit: only it is taken unasked, since no other was measured to be faster."""
    return [
        profile for profile in catalog.profiles() if profile.provider == CPU_PROVIDER and not misfits(profile, machine)
    ]


def _demands(profile: HardwareProfile) -> tuple[bool, int]:
    return profile.system is not None, len(profile.features)


def _best(machine: Machine) -> tuple[HardwareProfile, str]:
    """The most demanding profile that fits; if none fits, the least demanding one of the architecture. And why."""
    if fitting := _fitting(machine):
        best = max(fitting, key=_demands)
        return best, _uses_most(best)
    known = [profile for profile in catalog.profiles() if profile.provider == CPU_PROVIDER]
    family = [
        profile
        for profile in known
        if profile.architecture == machine.architecture and profile.system in {None, machine.system}
    ]
    if not family:
        raise ProfileError(
            "this machine",
            found=f"architecture {machine.architecture}",
            expected=listing(sorted({profile.architecture for profile in known})),
            fix="Write a profile for it (docs/profiles.md) and name its file.",
        )
    plainest = min(family, key=_demands)
    why = machine.cpu.unread or "none fits this CPU"
    return plainest, f"{why}; it is the plainest for {machine.architecture}"


def _uses_most(profile: HardwareProfile) -> str:
    return f"of those that fit, it uses most of this CPU: {', '.join(profile.features)}"


def _threads(profile: HardwareProfile, machine: Machine, asked: int | None) -> tuple[int, str]:
    if asked is not None:
        if not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= limits.THREADS:
            fix = "Leave it out to use every physical core."
            raise ProfileError("threads", found=repr(asked), expected=f"1 to {limits.THREADS}", fix=fix)
        return asked, "asked for"
    wish, cpu = profile.session.threads, machine.cpu
    if wish == "physical":
        counted = f"this process may use {cpu.physical_cores} physical of {cpu.logical_cores} logical cores"
        return cpu.physical_cores, "; ".join(filter(None, (counted, profile.why.get("threads"))))
    if wish == "performance":
        counted = f"{cpu.performance_cores} of {cpu.physical_cores} physical cores are of the fastest kind"
        return cpu.performance_cores, "; ".join(filter(None, (counted, profile.why.get("threads"))))
    return wish, profile.why.get("threads", "")
