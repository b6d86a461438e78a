"""The prefixes whose KV states a bundle brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from dualtune_edge.export.plan.prompts import PlannedStage, Plans
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.reuse.prefix_states import state_shape
from dualtune_edge.toolkit.bundle.kv_states import CacheType
from dualtune_edge.toolkit.files import safe_name

_MB: Final = 1_000_000


@dataclass(frozen=True)
class Prefix:
    """One prefix under one adapter, and the stages that begin with it."""

    adapter: str | None
    tokens: tuple[int, ...]
    folder: str
    stages: list[PlannedStage]

    @property
    def path(self) -> str:
        """The path of its state in the bundle."""
        return f"{self.folder}/{safe_name(self.stages[0].name)}.kv"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its stages."""
        return tuple(stage.name for stage in self.stages)

    def size(self, model: ModelSource, dtype: CacheType) -> int:
        """Bytes of its state."""
        return prod(state_shape(model.cache, len(self.tokens))) * np.dtype(dtype).itemsize


def prefixes_of(plans: Plans, model: ModelSource, folder: str) -> list[Prefix]:
    """Every prefix under every adapter once: those of the choices, then those of what is written."""
    found: dict[tuple[str, tuple[int, ...]], Prefix] = {}
    for stage in sorted(plans.stages, key=lambda stage: stage.plan.stage in ("arguments", "answer")):
        adapter = model.prefix_adapter(stage.adapter_name)
        key = (model.identity(adapter), stage.plan.prefix)
        if stage.plan.prefix:
            found.setdefault(key, Prefix(adapter, stage.plan.prefix, folder, [])).stages.append(stage)
    return list(found.values())


def affordable(prefixes: list[Prefix], model: ModelSource, widest: CacheType, budget: int | None) -> Iterator[Prefix]:
    """The first prefixes whose states are within the budget (MB)."""
    total = 0
    for prefix in prefixes:
        total += prefix.size(model, widest)
        if budget is not None and total > budget * _MB:
            return
        yield prefix


def left_out_warning(prefixes: list[Prefix], model: ModelSource, widest: CacheType) -> Iterator[str]:
    """A warning, if stages have no state."""
    if prefixes:
        stages = sum(len(prefix.stages) for prefix in prefixes)
        size = sum(prefix.size(model, widest) for prefix in prefixes)
        yield (
            f"prefix states: {stages} stages have none; theirs would take {size / _MB:,.1f} MB more than "
            "prefix_states_mb allows, so the device computes them at their first use"
        )
