"""Whether a bundle is whole and trusted, and how it runs on this machine."""

from __future__ import annotations

import os
import stat
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Final

from dualtune_edge.profiles.detect import free_memory
from dualtune_edge.profiles.schema import Machine
from dualtune_edge.runtime.bundle.current import is_store
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.cache.filesystems import name_of
from dualtune_edge.runtime.doctor.finding import Findings
from dualtune_edge.runtime.doctor.installation import older
from dualtune_edge.runtime.engines.engine import PlacedEngine
from dualtune_edge.runtime.result import Placement
from dualtune_edge.runtime.store.collect import contents
from dualtune_edge.runtime.variants import Ways, open_best, ways
from dualtune_edge.toolkit.bundle.sharing import weight_bytes

_PACKED: Final = 1.4  # bytes that int4 weights take in memory for each byte of their file (docs/profiles.md)


def examine_bundle(
    findings: Findings, path: Path, machine: Machine, *, trust: Path | None = None, profile: str | None = None
) -> None:
    """Open a bundle's folder, or the current version of a store, and compute a token with it."""
    with findings.errors_of("bundle"):
        bundle = open_bundle(path, trust=trust)
        manifest = bundle.manifest
        tools = sum(len(entry.toolset.tools) for entry in manifest.toolsets)
        found = (
            f"{bundle.name}: {manifest.base.name} with {len(manifest.adapters)} adapters for {tools} tools, "
            f"{bundle.size_bytes / 1e6:,.1f} MB, whole"
        )
        findings.ok("bundle", f"{found}, signed by {bundle.signer}" if bundle.signer else found)
        if is_store(path):
            _examine_store(findings, path)
        _examine_release(findings, bundle)
        _examine_folder(findings, bundle)
        _examine_versions(findings, bundle)
        _examine_running(findings, bundle, machine, profile)


def _examine_store(findings: Findings, store: Path) -> None:
    held = contents(store)
    names = [f"{version.release or 'a damaged version'}{', current' * version.current}" for version in held.versions]
    writable = "this user installs" if os.access(store, os.W_OK) else "another user installs"
    found = f"{'; '.join(names)}; {held.bytes / 1e6:,.1f} MB; {writable}"
    if any(version.release is None for version in held.versions):
        fix = "Run: dualtune-edge gc. The previous version cannot be gone back to if it is damaged."
        findings.note("store", found, expected="whole versions", fix=fix)
    else:
        findings.ok("store", found)


def _examine_release(findings: Findings, bundle: Bundle) -> None:
    if bundle.overdue:
        findings.note("release", bundle.overdue, expected="a newer version", fix="Look at the update channel.")
    elif bundle.manifest.release:
        findings.ok("release", str(bundle.manifest.release))


def _examine_folder(findings: Findings, bundle: Bundle) -> None:
    """Who can write to the bundle, and whether its files are known again without hashing them."""
    status = bundle.root.stat()
    if sys.platform != "win32" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not bundle.signer:
        found = (
            f"{bundle.root}: others can write to it (mode {stat.S_IMODE(status.st_mode):o}), and no signature counts"
        )
        findings.note("folder", found, expected="one that its owner alone writes", fix="Run: chmod -R go-w.")
    elif name_of(bundle.root) is None:
        size = f"{bundle.size_bytes / 1e6:,.1f} MB"
        found = f"{bundle.root}: a file system whose times are not trusted, so each start hashes all {size}"
        findings.note("folder", found, fix="It costs about a second for 1 GB; a service pays it once.")
    else:
        findings.ok("folder", f"{bundle.root}: hashed once, and again when it changes")


def _examine_versions(findings: Findings, bundle: Bundle) -> None:
    here, built = metadata.version("onnxruntime"), bundle.manifest.versions.get("onnxruntime", "0")
    if older(here, built):
        fix = f"Run: pip install 'onnxruntime>={built}'"
        findings.note("onnxruntime", f"{here}; the bundle was compared with {built}", expected=f">= {built}", fix=fix)


def _examine_running(findings: Findings, bundle: Bundle, machine: Machine, profile: str | None) -> None:
    with findings.errors_of("profile"):
        found = ways(bundle, profile=profile)
        for variant in found.candidates:
            findings.ok("variant", f"{variant.profile}: {'' if variant.usable else 'not here, '}{variant.why}")
        resolution = found.best.resolution
        for warning in resolution.warnings:
            findings.note("profile", warning, fix="Another variant or profile runs it, as said.")
        threads = resolution.settings.intra_op_threads
        findings.ok("profile", f"{resolution.profile.name}, {threads} thread{'s' if threads > 1 else ''}")
        if _fits_memory(findings, found, machine):
            _compute(findings, found)


def _fits_memory(findings: Findings, found: Ways, machine: Machine) -> bool:
    """Whether the weights fit into the machine's memory. With less free memory it gets slow, or is ended."""
    best, free = found.best, free_memory()
    bundle, total = best.bundle, machine.cpu.memory
    cache, context = bundle.entry.cache, bundle.manifest.base.context_length
    mapped = best.resolution.settings.weights == "mapped"
    weights = round(weight_bytes(bundle.manifest, bundle.entry) * (1 if mapped else _PACKED))
    tokens = cache.token_bytes * context
    kind = "mapped weights" if mapped else "weights"
    needed = f"{weights / 1e6:,.1f} MB of {kind}, {tokens / 1e6:,.1f} MB at {context:,} tokens"
    has = f"{free / 1e6:,.0f} MB free" if free is not None else "free memory unknown"
    if total is not None and weights > total:
        expected = f"weights within the {total / 1e6:,.0f} MB of this machine"
        findings.wrong("memory", needed, expected=expected, fix="Export a smaller base, or another recipe.")
        return False
    if free is not None and weights + tokens > free:
        fix = "End other programs, or keep conversations short."
        findings.note("memory", f"{needed}; {has}", expected="that much free", fix=fix)
    else:
        findings.ok("memory", f"{needed}; {has}")
    return True


def _compute(findings: Findings, found: Ways) -> None:
    """Open the model, and compute a token under the adapter of the first stage."""
    with findings.errors_of("engine"):
        start = time.perf_counter()
        opened = open_best(found)
        try:
            ready = time.perf_counter()
            opened.engine.use(next(opened.bundle.manifest.stages).adapter)
            opened.engine.forward([0])
            done = time.perf_counter()
            placement = opened.engine.placement if isinstance(opened.engine, PlacedEngine) else Placement()
        finally:
            opened.engine.close()
        times = f"opened in {(ready - start) * 1e3:,.0f} ms, a first token in {(done - ready) * 1e3:,.0f} ms"
        for reason, fix in (
            (placement.instead, "Install what it lacks, or name another profile."),
            (placement.not_mapped and f"weights are packed in memory: {placement.not_mapped}", "See the line cache."),
        ):
            if reason:
                findings.note("engine", reason, fix=fix)
        findings.ok("engine", f"{placement.provider} on the {placement.device}: {times}")
