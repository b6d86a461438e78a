"""Lines of a spec's data that no adapter of it learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles
from dualtune_edge.export.finetune.whole_spec.planning import Planned
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.validation import listing


def foreign_lines(
    spec: ExportSpec, data: Path | None, adapters: Sequence[Planned], files: TrajectoryFiles
) -> tuple[str, ...]:
    """Warnings of lines that name toolsets which the spec has not, a sentence a toolset.

    Args:
        spec: read with `trained=False`.
        data: as for `planned`.
        adapters: of `planned`.
        files: those that it has read.

    Raises:
        DataError: no adapter has anything to learn.

    """
    names = [toolset.name for toolset in spec.toolsets]
    paths = dict.fromkeys(path for toolset in spec.toolsets if (path := data or toolset.trajectories))
    counts = Counter(
        (path, line.toolset)
        for path in paths
        for line in files.read(path)
        if line.toolset is not None and line.toolset not in names
    )
    if not any(adapter.samples for adapter in adapters):
        found = f"lines of {', '.join(str(name) for _, name in counts)}" if counts else "no turn that they learn"
        raise DataError(
            ", ".join(map(str, paths)),
            found=f"nothing to learn for any adapter: {found}",
            expected=f"conversations of {listing(names)}",
            fix="Check the data's `toolset` against the spec's names.",
        )
    return tuple(
        f"{count} lines of {path} are not learnt: they are of the toolset {name!r}, which the spec has not"
        for (path, name), count in counts.items()
    )
