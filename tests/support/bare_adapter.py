"""An adapter as engines need it, without what stages and training know of it."""

from __future__ import annotations

from pathlib import Path

from dualtune_edge.runtime.bundle.model_source import AdapterSource
from dualtune_edge.toolkit.bundle.adapters import Mode


def bare_adapter(
    name: str, path: Path, sha256: str, mode: Mode = "external", invocation: tuple[int, ...] | None = None
) -> AdapterSource:
    """Name, mode, path, content hash and invocation as given; the rest is made up."""
    return AdapterSource(
        name=name,
        kind="selection",
        toolset="files",
        tool=None,
        mode=mode,
        rank=4,
        scale=2.0,
        sha256=sha256,
        invocation=invocation,
        path=path,
    )
