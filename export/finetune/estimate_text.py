"""An estimate for a reader."""

from __future__ import annotations

from dualtune_edge.export.estimate import gigabytes
from dualtune_edge.export.finetune.estimate import Estimate
from dualtune_edge.export.finetune.settings import adapter_name
from dualtune_edge.toolkit.console import table_lines

_MINUTE = 60
_HOUR = 3600
_SHORT = 100  # seconds: up to here as such


def summary(estimate: Estimate) -> str:
    """One line: what all runs take."""
    count = len(estimate.adapters)
    runs = f"{count} adapters: " if count > 1 else ""
    return f"{runs}about {duration(estimate.seconds)}{_memory(estimate)}"


def table(estimate: Estimate) -> str:
    """A line an adapter, and what all take."""
    if not estimate.adapters:
        return "nothing to train"
    columns = ("adapter", "samples", "held out", "steps", "time", "memory")
    rows = (
        (
            adapter_name(adapter.objective, adapter.tool, adapter.toolset),
            *map(str, (adapter.samples, adapter.held_out, adapter.steps)),
            duration(adapter.seconds),
            gigabytes(adapter.memory) if adapter.memory else "",
        )
        for adapter in estimate.adapters
    )
    return "\n".join((*table_lines(columns, rows, left={"adapter"}), "", summary(estimate)))


def shortage(estimate: Estimate) -> str:
    """A warning where the memory is not there; empty: it is."""
    if estimate.memory is None or estimate.memory_free is None or estimate.memory <= estimate.memory_free:
        return ""
    return (
        f"{gigabytes(estimate.memory)} of memory are needed, and {gigabytes(estimate.memory_free)} are free: "
        "--micro-batch 1, --gradient-checkpointing, --base-dtype bfloat16 and --base-bits 4 take less"
    )


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 5 min`."""
    if seconds < _SHORT:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR / _MINUTE:.0f} min"


def _memory(estimate: Estimate) -> str:
    if estimate.memory is None:
        return ""
    free = f" ({gigabytes(estimate.memory_free)} are free)" if estimate.memory_free else ""
    return f", {gigabytes(estimate.memory)} of memory{free}"
