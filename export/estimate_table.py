"""An estimate for a reader."""

from __future__ import annotations

from dualtune_edge.export.estimate import Estimate, PhaseNeed, gigabytes

_WIDTHS = (22, 10, 10, 10)


def estimate_table(estimate: Estimate) -> str:
    """A row for each phase, then what is needed and what there is."""
    rows = [_row("phase", "disk", "memory", "time"), *map(_phase, estimate.phases)]
    return "\n".join(
        (
            *rows,
            "",
            f"bundle: {gigabytes(estimate.bundle)}",
            f"disk:   {gigabytes(estimate.disk)} at most at a time, of {gigabytes(estimate.disk_free)} free",
            f"memory: {gigabytes(estimate.memory)} at most, of {gigabytes(estimate.memory_free)} free",
            f"time:   about {_time(estimate.seconds)} on an idle machine",
        )
    )


def _phase(need: PhaseNeed) -> str:
    disk = need.disk + need.scratch
    return _row(need.name, gigabytes(disk) if disk else "", gigabytes(need.memory), _time(need.seconds))


def _row(name: str, *cells: str) -> str:
    first, *others = _WIDTHS
    return name.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(cells, others, strict=True))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
