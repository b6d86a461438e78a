"""KV states of the static prefixes, computed on the finished graphs by the engine that the device runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from dualtune_edge.export.graphs import BundleGraphs
from dualtune_edge.export.inputs import Inputs
from dualtune_edge.export.plan import PlannedStage, Plans
from dualtune_edge.export.progress import Stages
from dualtune_edge.export.work_folder import Work
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engine import ORT_KV_FORMAT, AdapterSource, ModelSource
from dualtune_edge.runtime.ort_engine import OrtEngine
from dualtune_edge.runtime.prefix_states import graph_digest, graph_paths, state_key, state_shape
from dualtune_edge.toolkit.files import safe_name, sha256_file
from dualtune_edge.toolkit.manifest import StateEntry

_MB: Final = 1_000_000


@dataclass(frozen=True)
class States:
    """Stage's name → its state: those of equal adapter and prefix share one."""

    entries: Mapping[str, StateEntry]
    warnings: tuple[str, ...] = ()


def write_states(
    inputs: Inputs, plans: Plans, work: Work, *, graphs: BundleGraphs, budget: int | None, stages: Stages
) -> States:
    """Compute and write the states of a bundle's prefixes that are not there yet.

    Args:
        inputs: what was read.
        plans: the stages.
        work: the bundle, with its graphs and adapters.
        graphs: say where they are.
        budget: the most MB to write; None: all. The choices come first: every call makes one.
        stages: shows the progress.

    Raises:
        EngineError: a graph fails.

    """
    model = _model(inputs, work.folder, graphs.paths)
    prefixes = _prefixes(plans, model, inputs.place.states)
    kept = list(_within(prefixes, model, budget))
    entries: dict[str, StateEntry] = {}
    if kept:
        (work.folder / inputs.place.states).mkdir(parents=True, exist_ok=True)
        with stages.stage("prefix states", len(kept)) as progress, contextlib.ExitStack() as opened:
            writer: _Writer | None = None
            for prefix in kept:
                step = graphs.state(prefix.path, prefix.adapter, prefix.tokens)
                if not work.has(step):
                    writer = writer or _Writer(
                        opened.enter_context(_engine(model)), model, work.folder, graphs.paths, inputs.place.model
                    )
                    work.clear(work.folder / prefix.path)
                    entry = writer.write(prefix)
                    work.keep(step, work.folder / prefix.path, value=entry.model_dump_json())
                entry = StateEntry.model_validate_json(work.value(step))
                entries |= dict.fromkeys((stage.name for stage in prefix.stages), entry)
                progress.advance()
    return States(entries, tuple(_left_out(prefixes[len(kept) :], model)))


def planned_lengths(inputs: Inputs, plans: Plans, budget: int | None) -> tuple[int, ...]:
    """Tokens of each state that will be written."""
    model = _model(inputs, Path(), {each.name: "" for each in inputs.adapters})
    return tuple(len(prefix.tokens) for prefix in _within(_prefixes(plans, model, inputs.place.states), model, budget))


def _engine(model: ModelSource) -> OrtEngine:
    return OrtEngine(model, SessionSettings(intra_op_threads=detect().cpu.physical_cores))


def _left_out(prefixes: list[_Prefix], model: ModelSource) -> Iterator[str]:
    if prefixes:
        stages, size = sum(len(each.stages) for each in prefixes), sum(each.size(model) for each in prefixes)
        yield (
            f"prefix states: {stages} stages have none; theirs would take {size / _MB:,.1f} MB more than "
            "prefix_states_mb allows, so the device computes them at their first use"
        )


@dataclass(frozen=True)
class _Prefix:
    """One prefix under one adapter, and the stages that begin with it."""

    adapter: str | None
    tokens: tuple[int, ...]
    folder: str
    stages: list[PlannedStage]

    @property
    def path(self) -> str:
        return f"{self.folder}/{safe_name(self.stages[0].name)}.kv"

    def size(self, model: ModelSource) -> int:
        return prod(state_shape(model.cache, len(self.tokens))) * np.dtype(model.cache.dtype).itemsize


@dataclass(frozen=True)
class _Writer:
    engine: OrtEngine
    model: ModelSource
    folder: Path
    paths: Mapping[str, str]
    base: str  # folder of the base's graph, in the bundle
    hashes: dict[str, str] = field(default_factory=dict)  # path → SHA-256: the base graph is read for every adapter

    def write(self, prefix: _Prefix) -> StateEntry:
        self.engine.use(prefix.adapter)
        self.engine.forward(prefix.tokens)
        values = np.asarray(self.engine.snapshot().state)
        self.engine.release(prefix.adapter)
        (self.folder / prefix.path).write_bytes(values.astype(values.dtype.newbyteorder("<")).tobytes())
        adapter = None if prefix.adapter is None else self.model.adapter(prefix.adapter)
        read = graph_paths(adapter, self.paths.get(prefix.adapter or ""), folder=self.base)
        for each in read:
            self.hashes[each] = self.hashes.get(each) or sha256_file(self.folder / each)
        graph = graph_digest([self.hashes[each] for each in read])
        key = state_key(self.model, prefix.adapter, prefix.tokens, graph=graph, kv_format=ORT_KV_FORMAT)
        return StateEntry(path=prefix.path, key=key)


def _model(inputs: Inputs, folder: Path, paths: Mapping[str, str]) -> ModelSource:
    checkpoint = inputs.checkpoint
    adapters = tuple(
        AdapterSource(each.name, each.mode, folder / paths[each.name], each.sha256) for each in inputs.adapters
    )
    return ModelSource(
        folder=folder / inputs.place.model,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=adapters,
    )


def _prefixes(plans: Plans, model: ModelSource, folder: str) -> list[_Prefix]:
    """Those of the choices, then those of the arguments; each once."""
    found: dict[tuple[str, tuple[int, ...]], _Prefix] = {}
    for stage in sorted(plans.stages, key=lambda stage: stage.plan.stage == "arguments"):
        adapter = stage.adapter.name if stage.adapter else None
        key = (model.identity(adapter), stage.plan.prefix)
        if stage.plan.prefix:
            found.setdefault(key, _Prefix(adapter, stage.plan.prefix, folder, [])).stages.append(stage)
    return list(found.values())


def _within(prefixes: list[_Prefix], model: ModelSource, budget: int | None) -> Iterator[_Prefix]:
    """The first of them, as far as the budget (MB) goes."""
    total = 0
    for prefix in prefixes:
        total += prefix.size(model)
        if budget is not None and total > budget * _MB:
            return
        yield prefix
