"""Writes the KV states of the static prefixes, computed on the finished graphs by the device's engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Final, Literal

import numpy as np

from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.plan.inputs import Inputs, dynamic_model, model_source
from dualtune_edge.export.plan.prompts import PlannedStage, Plans
from dualtune_edge.export.plan.recipes import StatesType
from dualtune_edge.export.plan.spec import ExportSpec
from dualtune_edge.export.plan.subjects import Subject, subjects
from dualtune_edge.export.states.rounded import Rounder
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.decode.prefix_states import graph_digest, graph_paths, state_key, state_shape
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.toolkit.bundle.kv_states import CacheType, StateEntry
from dualtune_edge.toolkit.bundle.parity import StateParity
from dualtune_edge.toolkit.files import safe_name, sha256_file
from dualtune_edge.toolkit.frozen import Frozen

_MB: Final = 1_000_000


@dataclass(frozen=True)
class States:
    """`entries`: name of a stage → its state, shared by stages of equal adapter and prefix; `parity`: comparisons."""

    entries: Mapping[str, StateEntry]
    parity: tuple[StateParity, ...] = ()
    warnings: tuple[str, ...] = ()


class _Kept(Frozen):
    """The value of a state in the journal."""

    entry: StateEntry
    parity: StateParity | None


def write_states(
    inputs: Inputs,
    plans: Plans,
    work: Work,
    *,
    graphs: BundleGraphs,
    spec: ExportSpec,
    calibration: Sequence[Case],
    budget: int | None,
    progress: Progress,
) -> States:
    """Compute and write the states that are not there yet.

    Args:
        inputs: the inputs of the model.
        plans: the stages.
        work: the folder with the graphs and the adapters.
        graphs: the graphs.
        spec: says the type of the states, and how much is compared.
        calibration: the user's own conversations.
        budget: the most MB to write; None: all. States of choices come first, as every call makes one.
        progress: shows a bar.

    Raises:
        EngineError: a graph fails.
        ParityError: a state cannot be stored as the spec asks.

    """
    model = graphs.source
    prefixes = prefixes_of(plans, model, inputs.layout.states)
    rounding = _Rounding(inputs, plans, spec, calibration)
    kept = list(affordable(prefixes, model, rounding.widest, budget))
    entries: dict[str, StateEntry] = {}
    judged: list[StateParity] = []
    if kept:
        (work.folder / inputs.layout.states).mkdir(parents=True, exist_ok=True)
        with progress.phase(PhaseName.STATES, len(kept)) as phase, contextlib.ExitStack() as opened:
            writer: _Writer | None = None
            for prefix in sorted(kept, key=lambda prefix: _is_merged(model, prefix.adapter)):  # one graph is open
                step = graphs.state(prefix.path, prefix.adapter, prefix.tokens, rounding.settings(graphs, prefix.names))
                if not work.has(step):
                    writer = writer or _Writer(
                        opened.enter_context(_engine(model)),
                        model,
                        work.folder,
                        graphs.paths,
                        inputs.layout.model,
                        rounding.rounder(),
                    )
                    work.clear(work.folder / prefix.path)
                    written = writer.write(prefix)
                    work.keep(step, work.folder / prefix.path, value=written.model_dump_json())
                found = _Kept.model_validate_json(work.value(step))
                entries |= dict.fromkeys(prefix.names, found.entry)
                judged += [found.parity] if found.parity else []
                phase.advance()
    left_out = left_out_warning(prefixes[len(kept) :], model, rounding.widest)
    return States(entries, tuple(judged), (*left_out, *_exact(judged)))


def planned(inputs: Inputs, plans: Plans, spec: ExportSpec) -> tuple[tuple[int, ...], int]:
    """The tokens of each state that will be written, and the most bytes of all states."""
    model = model_source(inputs, Path(), dynamic_model(inputs, inputs.checkpoint.cache))
    widest = _Rounding(inputs, plans, spec, ()).widest
    kept = list(affordable(prefixes_of(plans, model, inputs.layout.states), model, widest, spec.prefix_states_mb))
    return tuple(len(prefix.tokens) for prefix in kept), sum(prefix.size(model, widest) for prefix in kept)


@dataclass(frozen=True)
class _Rounding:
    """The type of the states, and what it depends on. States of a cache in int8 are never rounded."""

    inputs: Inputs
    plans: Plans
    spec: ExportSpec
    calibration: Sequence[Case]

    @property
    def wanted(self) -> StatesType | Literal["int8"]:
        return "int8" if self.inputs.kv_type == "int8" else self.spec.prefix_states_type

    @property
    def widest(self) -> CacheType:
        """Their type, or the widest type that they may have."""
        return "float32" if self.wanted == "auto" else self.wanted

    def rounder(self) -> Rounder | None:
        """None: the states are not rounded."""
        match self.wanted:
            case "float16" | "auto" as wanted:
                return Rounder(self.inputs.checkpoint, self._subjects, wanted, self.spec.parity, self.calibration)
            case _:
                return None

    def settings(self, graphs: BundleGraphs, names: Sequence[str]) -> object:
        """What the state of these stages depends on besides its tokens, as JSON has it."""
        wanted, parity = self.wanted, self.spec.parity
        if wanted in {"float32", "int8"} or parity is None:
            return wanted
        own = [
            ([message.model_dump(mode="json") for message in case.messages], case.toolset, case.tool)
            for case in self.calibration
        ]
        asked = [
            graphs.compared(subject, parity.argument_tokens).key
            for subject in self._subjects
            if subject.stage.name in names
        ]
        return [wanted, parity.limits.model_dump(), asked, own]

    @cached_property
    def _subjects(self) -> tuple[Subject, ...]:
        return subjects(self.plans, self.spec.parity.prompts if self.spec.parity else 0)


def _engine(model: ModelSource) -> OrtEngine:
    return OrtEngine(model, SessionSettings(THREADS, spinning=False))


def _is_merged(model: ModelSource, adapter: str | None) -> bool:
    return adapter is not None and model.adapter(adapter).mode == "merged"


def left_out_warning(prefixes: list[Prefix], model: ModelSource, widest: CacheType) -> Iterator[str]:
    """A warning, if stages have no state."""
    if prefixes:
        stages = sum(len(prefix.stages) for prefix in prefixes)
        size = sum(prefix.size(model, widest) for prefix in prefixes)
        yield (
            f"prefix states: {stages} stages have none; theirs would take {size / _MB:,.1f} MB more than "
            "prefix_states_mb allows, so the device computes them at their first use"
        )


def _exact(judged: Sequence[StateParity]) -> Iterator[str]:
    exact = [state for state in judged if state.exact_because]
    if exact:
        first = f"{exact[0].path} because of {exact[0].exact_because}"
        yield f"prefix states: {len(exact)} of {len(judged)} stay in float32: {first}"


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


@dataclass(frozen=True)
class _Writer:
    engine: OrtEngine
    model: ModelSource
    folder: Path
    paths: Mapping[str, str]
    base: str  # folder of the base's graph, in the bundle
    rounder: Rounder | None
    hashes: dict[str, str] = field(default_factory=dict)  # path → SHA-256: the base graph is read for every adapter

    def write(self, prefix: Prefix) -> _Kept:
        self.engine.use(prefix.adapter)
        self.engine.forward(prefix.tokens)
        exact = self.engine.snapshot()
        state, judged = exact, None
        if self.rounder:
            state, judged = self.rounder.choose(self.engine, prefix.path, prefix.names, exact)
        self.engine.release(prefix.adapter)
        values = np.asarray(state.state)
        (self.folder / prefix.path).write_bytes(values.astype(values.dtype.newbyteorder("<")).tobytes())
        adapter = None if prefix.adapter is None else self.model.adapter(prefix.adapter)
        read = graph_paths(adapter, self.paths.get(prefix.adapter or ""), folder=self.base)
        for path in read:
            self.hashes[path] = self.hashes.get(path) or sha256_file(self.folder / path)
        graph = graph_digest([self.hashes[path] for path in read])
        key = state_key(self.model, prefix.adapter, prefix.tokens, graph=graph, kv_format=ORT_KV_FORMAT)
        entry = StateEntry(path=prefix.path, key=key, stored=None if state is exact else "float16")
        return _Kept(entry=entry, parity=judged)


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
