"""Prefix states of static graphs, computed by the CPU provider on the graphs that are compiled.

The NPU's states differ from these by a few steps (docs/profiles.md, "Qualcomm's NPU"): both round the same values.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dualtune_edge.export.plan.inputs import Inputs, model_source
from dualtune_edge.export.plan.prompts import Plans, prompt_path
from dualtune_edge.export.plan.steps import Steps
from dualtune_edge.export.states.prefixes import Prefix, affordable, left_out_warning, prefixes_of
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import STATIC_KV_FORMAT
from dualtune_edge.runtime.engines.static_engine import StaticEngine
from dualtune_edge.runtime.reuse.prefix_states import graph_digest, graph_paths, state_key
from dualtune_edge.toolkit.bundle.kv_states import StateEntry
from dualtune_edge.toolkit.bundle.manifest import ModelEntry
from dualtune_edge.toolkit.files import sha256_file


def with_states(
    entry: ModelEntry,
    inputs: Inputs,
    plans: Plans,
    work: Work,
    *,
    made_of: Mapping[str | None, str],
    budget: int | None,
    progress: Progress,
) -> tuple[ModelEntry, tuple[str, ...]]:
    """Compute and write the missing states; the model's entry with them, and warnings.

    Args:
        entry: the model, whose graphs are built.
        inputs: the export's.
        plans: the stages.
        work: the bundle.
        made_of: adapter (None: the base) → key of the step that made its graphs.
        budget: the largest number of MB to write; None: no limit. States of choices come first.
        progress: shows a bar.

    Raises:
        EngineError: a graph fails.

    """
    model = model_source(inputs, work.folder, entry)
    prefixes, dtype = prefixes_of(plans, model, inputs.layout.states), entry.cache.dtype
    kept = list(affordable(prefixes, model, dtype, budget))
    entries: dict[str, StateEntry] = {}  # by the stage's prompt
    if kept:
        (work.folder / inputs.layout.states).mkdir(parents=True, exist_ok=True)
        with progress.phase(PhaseName.STATES, len(kept)) as phase:
            for prefix in kept:
                step = Steps(inputs).state(prefix.path, [made_of[prefix.adapter]], prefix.tokens, dtype)
                if not work.has(step):
                    work.clear(work.folder / prefix.path)
                    state = _write(prefix, model, entry, work)
                    work.keep(step, work.folder / prefix.path, value=state.model_dump_json())
                state = StateEntry.model_validate_json(work.value(step))
                entries |= {prompt_path(stage): state for stage in prefix.stages}
                phase.advance()
    states = tuple({state.path: state for state in entries.values()}.values())
    entry = entry.model_copy(
        update={"states": states, "stage_states": {prompt: state.path for prompt, state in entries.items()}}
    )
    return entry, tuple(left_out_warning(prefixes[len(kept) :], model, dtype))


def _write(prefix: Prefix, model: ModelSource, entry: ModelEntry, work: Work) -> StateEntry:
    """Compute and write one state, by an engine that has only one adapter's graphs open."""
    with StaticEngine(model, SessionSettings(THREADS, spinning=False)) as engine:
        engine.use(prefix.adapter)
        engine.forward(prefix.tokens)
        values = np.asarray(engine.snapshot().state)
    (work.folder / prefix.path).write_bytes(values.astype(values.dtype.newbyteorder("<")).tobytes())
    adapter = None if prefix.adapter is None else model.adapter(prefix.adapter)
    adapter_path = adapter.path.relative_to(work.folder).as_posix() if adapter else None
    paths = graph_paths(adapter, adapter_path, folder=entry.folder, form=entry.graph)
    graph = graph_digest([sha256_file(work.folder / path) for path in paths])
    key = state_key(model, prefix.adapter, prefix.tokens, graph=graph, kv_format=STATIC_KV_FORMAT)
    return StateEntry(path=prefix.path, key=key)
