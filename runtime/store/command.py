"""`dualtune-edge install`, `rollback`, `list` and `gc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualtune_edge.runtime.options import TrustFile
from dualtune_edge.runtime.store.collect import Version, contents
from dualtune_edge.runtime.store.collect import collect as collect_garbage
from dualtune_edge.runtime.store.install import install as install_pack
from dualtune_edge.runtime.store.install import roll_back
from dualtune_edge.runtime.trust.policy import read_trust
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.store import Installed
from dualtune_edge.toolkit.frozen import Frozen

StoreFolder = Annotated[Path, typer.Option("--store", metavar="DIR", help="The folder of the store.")]


class CurrentVersion(Frozen):
    """What `install --json` and `rollback --json` print. Bytes of blobs that were written, and that were there."""

    current: Installed
    previous: Installed | None
    written: int = 0
    shared: int = 0

    def line(self) -> str:
        """In a line."""
        before = f", before it {self.previous.release}" if self.previous else ""
        return f"{self.current.release} is current{before}"


def install(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A pack: the file or folder that `pack` writes.")],
    *,
    store: StoreFolder,
    trust: TrustFile = None,
    as_json: console.AsJson = False,
) -> None:
    """Install a pack into a store, and make it the current version.

    Commands take the store in place of a bundle. Agents that run keep the version that they opened. A version is
    refused that is not later than every one that was installed; `rollback` goes back.

    Example:
        dualtune-edge install helper-7.tar --store /var/lib/helper --trust /etc/helper/trust.toml

    """
    done = install_pack(pack, store, read_trust(trust))
    state = done.state
    report = CurrentVersion(current=state.current, previous=state.previous, written=done.written, shared=done.shared)
    sizes = f"{done.written / 1e6:,.1f} MB written, {done.shared / 1e6:,.1f} MB were there"
    console.result(report, f"{report.line()}; {sizes}", as_json=as_json)


def rollback(*, store: StoreFolder, trust: TrustFile = None, as_json: console.AsJson = False) -> None:
    """Make the version before the current one.

    The two change places. The store's log says when.

    Example:
        dualtune-edge rollback --store /var/lib/helper

    """
    state = roll_back(store, read_trust(trust))
    report = CurrentVersion(current=state.current, previous=state.previous)
    console.result(report, report.line(), as_json=as_json)


def list_(*, store: StoreFolder, as_json: console.AsJson = False) -> None:
    """List the versions of a store.

    Example:
        dualtune-edge list --store /var/lib/helper

    """
    held = contents(store)
    rows = [
        (str(version.release or "damaged"), _standing(version), f"{version.bytes / 1e6:,.1f}", version.image[:12])
        for version in held.versions
    ]
    table = console.table_lines(("release", "", "MB", "image"), rows, left={"release", "", "image"})
    log = [f"{change.at:%Y-%m-%d %H:%M} {change.by} {change.version} {change.image[:12]}" for change in held.log]
    console.result(held, "\n".join((*table, f"{held.bytes / 1e6:,.1f} MB in all", "", *log)), as_json=as_json)


def gc(*, store: StoreFolder, as_json: console.AsJson = False) -> None:
    """Remove what a store does not need.

    That is: versions that are neither the current one nor the one before, and that no agent has open; what only they
    had; what a power cut left.

    Example:
        dualtune-edge gc --store /var/lib/helper

    """
    freed = collect_garbage(store)
    text = f"{freed.versions} versions and {freed.blobs} blobs removed, {freed.bytes / 1e6:,.1f} MB"
    console.result(freed, text, as_json=as_json)


def _standing(version: Version) -> str:
    return "current" if version.current else "previous" if version.previous else ""
