"""Writes the KV states of the static prefixes, computed on the finished graphs by the device's engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.compare.bundle import PrefixKey
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.plan.inputs import Inputs, dynamic_model, model_source
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.plan.subjects import Subject, subjects
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.recipes import StatesType
from dualtune_edge.export.states.prefixes import Prefix, affordable, left_out_warning, prefixes_of
from dualtune_edge.export.states.rounded import Rounder
from dualtune_edge.export.states.writer import KeptState, StateWriter
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.journal import Step
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.kv_states import CacheType, StateEntry
from dualtune_edge.toolkit.bundle.parity import StateParity


@dataclass(frozen=True)
class States:
    """`entries`: name of a stage → its state, shared by stages of equal adapter and prefix; `parity`: comparisons."""

    entries: Mapping[str, StateEntry]
    parity: tuple[StateParity, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WantedStates:
    """The states that a model is to have. States of a cache in int8 are never rounded.

    Args:
        inputs: of the model.
        plans: the stages.
        spec: says the type of the states, and how much is compared.
        calibration: the user's own conversations.
        budget: the most MB to write; None: all. States of choices come first, as every call makes one.

    """

    inputs: Inputs
    plans: Plans
    spec: ExportSpec
    calibration: Sequence[Case]
    budget: int | None

    def prefixes(self, model: ModelSource) -> tuple[list[Prefix], list[Prefix]]:
        """Those whose states are within the budget, and those that are left out."""
        found = prefixes_of(self.plans, model, self.inputs.layout.states)
        kept = list(affordable(found, model, self.widest, self.budget))
        return kept, found[len(kept) :]

    @property
    def states_type(self) -> StatesType | Literal["int8"]:
        """What the spec asks, and the cache allows."""
        return "int8" if self.inputs.kv_type == "int8" else self.spec.prefix_states_type

    @property
    def widest(self) -> CacheType:
        """Their type, or the widest type that they may have."""
        return "float32" if self.states_type == "auto" else self.states_type

    def rounder(self) -> Rounder | None:
        """None: the states are not rounded."""
        match self.states_type:
            case "float16" | "auto" as wanted:
                return Rounder(self.inputs.checkpoint, self._subjects, wanted, self.spec.parity, self.calibration)
            case _:
                return None

    def step(self, graphs: BundleGraphs, prefix: Prefix) -> Step:
        """The journal's step of a state."""
        return graphs.state(prefix.path, prefix.adapter, prefix.tokens, self._settings(graphs, prefix.names))

    def _settings(self, graphs: BundleGraphs, names: Sequence[str]) -> object:
        """What the state of these stages depends on besides its tokens, as JSON has it."""
        states_type, parity = self.states_type, self.spec.parity
        if states_type in {"float32", "int8"} or parity is None:
            return states_type
        own = [
            ([message.model_dump(mode="json") for message in case.messages], case.toolset, case.tool)
            for case in self.calibration
        ]
        asked = [
            graphs.compared(subject, parity.argument_tokens).key
            for subject in self._subjects
            if subject.stage.name in names
        ]
        return [states_type, parity.limits.model_dump(), asked, own]

    @cached_property
    def _subjects(self) -> tuple[Subject, ...]:
        return subjects(self.plans, self.spec.parity.prompts if self.spec.parity else 0)


def write_states(wanted: WantedStates, work: Work, graphs: BundleGraphs, progress: Progress) -> States:
    """Compute and write the states that are not there yet.

    Raises:
        EngineError: a graph fails.
        ParityError: a state cannot be stored as the spec asks.

    """
    model, states = graphs.source, wanted.inputs.layout.states
    kept, left = wanted.prefixes(model)
    entries: dict[str, StateEntry] = {}
    judged: list[StateParity] = []
    if kept:
        (work.folder / states).mkdir(parents=True, exist_ok=True)
        with progress.phase(PhaseName.STATES, len(kept)) as phase, contextlib.ExitStack() as opened:
            writer: StateWriter | None = None
            for prefix in sorted(kept, key=lambda prefix: _is_merged(model, prefix.adapter)):  # one graph is open
                step = wanted.step(graphs, prefix)
                if not work.has(step):
                    writer = writer or opened.enter_context(
                        StateWriter(model, work.folder, graphs.paths, wanted.inputs.layout.model, wanted.rounder())
                    )
                    work.clear(work.folder / prefix.path)
                    written = writer.write(prefix, _computed_file(work, step))
                    work.keep(step, work.folder / prefix.path, value=written.model_dump_json())
                found = KeptState.model_validate_json(work.value(step))
                entries |= dict.fromkeys(prefix.names, found.entry)
                judged += [found.parity] if found.parity else []
                phase.advance()
    left_out = left_out_warning(left, model, wanted.widest)
    return States(entries, tuple(judged), (*left_out, *_exact(judged)))


def state_files(wanted: WantedStates, work: Work, graphs: BundleGraphs) -> dict[PrefixKey, Path]:
    """Files in the scratch folder, for the values of the states that `write_states` will write: it takes them there."""
    return {
        (graphs.paths.get(prefix.adapter or ""), prefix.tokens): _computed_file(work, wanted.step(graphs, prefix))
        for prefix in wanted.prefixes(graphs.source)[0]
    }


def planned(inputs: Inputs, plans: Plans, spec: ExportSpec) -> tuple[tuple[int, ...], int]:
    """The tokens of each state that will be written, and the most bytes of all states."""
    model = model_source(inputs, Path(), dynamic_model(inputs, inputs.checkpoint.cache))
    wanted = WantedStates(inputs, plans, spec, (), spec.prefix_states_mb)
    kept, _ = wanted.prefixes(model)
    return tuple(len(prefix.tokens) for prefix in kept), sum(prefix.size(model, wanted.widest) for prefix in kept)


def _computed_file(work: Work, step: Step) -> Path:
    return work.scratch / f"{step.key}.npy"


def _is_merged(model: ModelSource, adapter: str | None) -> bool:
    return adapter is not None and model.adapter(adapter).mode == "merged"


def _exact(judged: Sequence[StateParity]) -> Iterator[str]:
    exact = [state for state in judged if state.exact_because]
    if exact:
        first = f"{exact[0].path} because of {exact[0].exact_because}"
        yield f"prefix states: {len(exact)} of {len(judged)} stay in float32: {first}"
