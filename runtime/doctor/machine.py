"""What this machine has: CPU, profile, memory, the cache folder, the trust policy that its environment names."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.detect import free_memory
from dualtune_edge.profiles.resolve import candidates, resolve
from dualtune_edge.profiles.schema import Machine
from dualtune_edge.runtime.cache.folder import BUDGET_VARIABLE, CACHE_VARIABLE, cache_budget, private_folder
from dualtune_edge.runtime.doctor.finding import Findings
from dualtune_edge.runtime.trust.policy import TRUST_VARIABLE, TrustPolicy, read_trust
from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.files import unwritable

_SMALL: Final = 2**30  # bytes of memory below which a model of half a billion weights does not fit
_TIGHT: Final = 10**9  # bytes of free disk below which packed weights of such a model do not fit


def examine_machine(findings: Findings, machine: Machine) -> None:
    """The CPU and the memory."""
    cpu, free = machine.cpu, free_memory()
    total = f"{cpu.memory / 2**30:.1f} GiB of memory" if cpu.memory else "memory of unknown size"
    left = f", {free / 2**30:.1f} free" if free is not None else ""
    found = (
        f"{machine.system} on {machine.architecture}: {cpu.name or 'a CPU without a name'}; "
        f"{cpu.physical_cores} core{'' if cpu.physical_cores == 1 else 's'}, {total}{left}"
    )
    if cpu.unread:
        findings.note("machine", f"{found}; {cpu.unread}", fix="Name a profile: the best one is not known.")
    elif free is not None and free < _SMALL:
        findings.note(
            "machine", found, expected="1 GiB free for a base of half a billion weights", fix="End other programs."
        )
    else:
        findings.ok("machine", found)


def examine_profiles(findings: Findings, machine: Machine, profile: str | None) -> None:
    """Which profile is followed, and for which ones a bundle may be built."""
    with findings.errors_of("profile"):
        asked = catalog.asked_for(profile)
        resolution = resolve(catalog.load(asked) if asked else None, machine)
        name, threads = resolution.profile.name, resolution.settings.intra_op_threads
        found = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
        if resolution.warnings:
            fix = "Name another profile, or none."
            findings.note("profile", f"{found}; {'; '.join(resolution.warnings)}", fix=fix)
        else:
            findings.ok("profile", found)
    usable = [candidate.profile for candidate in candidates(machine) if candidate.usable]
    findings.ok("runs", f"any bundle by its primary model; variants for {', '.join(usable) or 'no profile'}")


def examine_cache(findings: Findings) -> None:
    """The cache folder: whether this user alone can write to it, and what room there is."""
    with findings.errors_of("cache"):
        folder, budget = private_folder(), cache_budget()
        try:
            with tempfile.TemporaryFile(dir=folder):
                free = shutil.disk_usage(folder).free
            size = sum(path.lstat().st_size for path in folder.rglob("*"))
        except OSError as error:
            raise unwritable(folder, error) from None
        found = f"{folder}: {size / 1e6:,.0f} of {budget / 1e6:,.0f} MB used, {free / 1e6:,.0f} MB free on its disk"
        if budget == 0:
            findings.note("cache", found, expected="room for packed weights", fix=f"Unset {BUDGET_VARIABLE}.")
        elif free < _TIGHT:
            fix = f"Make room, or set {CACHE_VARIABLE} to a folder on another disk."
            findings.note("cache", found, expected="1,000 MB free", fix=fix)
        else:
            findings.ok("cache", found)


def examine_trust(findings: Findings, trust: Path | None) -> None:
    """The trust policy: whose signatures count, and until when."""
    with findings.errors_of("trust"):
        policy = read_trust(trust)
        if policy is None:
            fix = f"Give --trust FILE, or set {TRUST_VARIABLE}: docs/signing.md."
            findings.note("trust", "no policy: a bundle of anybody is opened", expected="a trust policy", fix=fix)
        else:
            _examine_signatories(findings, policy)


def _examine_signatories(findings: Findings, policy: TrustPolicy) -> None:
    signatories, now = (*policy.keys, *policy.roots), datetime.now(UTC)
    early = [signatory.name for signatory in signatories if signatory.not_before and now < signatory.not_before]
    late = [signatory.name for signatory in signatories if signatory.expires and now > signatory.expires]
    idle = [*(f"{name} is not valid yet" for name in early), *(f"{name} has expired" for name in late)]
    signatures = "required" if policy.required else "verified where there are any"
    names = ", ".join(signatory.name for signatory in signatories) or "nobody"
    found = "; ".join((f"signatures are {signatures}, by {names}", *idle))
    clock = f"This machine's clock says {now:%Y-%m-%d %H:%M} UTC. Correct it, or install a newer policy."
    try:
        import dualtune_edge.runtime.trust.signature  # noqa: F401, PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise extras.missing(error, "the trust policy") or error from None
    if len(idle) == len(signatories) and policy.required:
        findings.wrong("trust", found, expected="a key that is valid today", fix=clock)
    elif idle:
        findings.note("trust", found, expected="keys that are valid today", fix=clock)
    else:
        findings.ok("trust", found)
