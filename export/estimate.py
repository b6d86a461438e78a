"""What an export will need before it begins: disk, memory and time, from shapes, settings and prompts.

Disk and memory are upper bounds: an export that begins finds the room that it needs. docs/performance.md says how far
they are off. Time is rough: what the same work took on one machine, scaled by how fast this one hashes and by its
cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeAlias

from dualtune_edge.export.build import needs as build
from dualtune_edge.export.compare.needs import comparison
from dualtune_edge.export.plan.inputs import Inputs, quantizations_for
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.publish.needs import manifest
from dualtune_edge.export.sizes.model import ModelSizes
from dualtune_edge.export.sizes.need import MB, Need
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.states.needs import prefix_states
from dualtune_edge.export.work import room
from dualtune_edge.export.work.folder import kept_bytes
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.toolkit.errors import RoomError
from dualtune_edge.toolkit.frozen import Frozen

_HASHED: Final = 1.8e9  # bytes a second, by the machine that the seconds were measured on
_TEXT: Final = 30  # bytes of memory for each byte of tokenizer.json, as tokenizer and grammars hold it
NeedOf: TypeAlias = Callable[[ModelSizes], Need | None]  # None: the model has no such phase
# Left out are phases that take next to nothing, and static graphs, which only their compiler can estimate.
NEEDS: Final[Mapping[PhaseName, NeedOf]] = {
    PhaseName.READ: build.reading,
    PhaseName.KV_SCALES: build.kv_scales,
    PhaseName.MOMENTS: build.input_moments,
    PhaseName.BASE: build.base_graph,
    PhaseName.ADAPTERS: build.adapter_files,
    PhaseName.MERGED: build.merged_graphs,
    PhaseName.TRIAL: build.trial,
    PhaseName.COMPARISON: comparison,
    PhaseName.STATES: prefix_states,
    PhaseName.MANIFEST: manifest,
}


class PhaseNeed(Frozen):
    """One phase. Bytes that it leaves on the disk, that it takes there meanwhile besides, and of memory until then."""

    name: PhaseName
    disk: int
    scratch: int
    memory: int
    seconds: float


class Estimate(Frozen):
    """`disk`: the most that lies on the disk at a time, in bytes; `bundle`: what stays. `…_free`: what there is."""

    phases: tuple[PhaseNeed, ...]
    bundle: int
    disk: int
    disk_free: int
    memory: int
    memory_free: int
    seconds: float
    warnings: tuple[str, ...] = ()  # of the input, as an export prints them


def estimate(spec: ExportSpec, inputs: Inputs, plans: Plans, output: Path, others: Sequence[Inputs] = ()) -> Estimate:
    """What a whole export to `output` needs; what an earlier one left there counts as free disk.

    `others` are the inputs of the further models of a bundle for several profiles. With `quantization: auto` each phase
    is that of the recipe which needs most; the time is that of one recipe.
    """
    phases, present = tuple(_primary_model(spec, inputs, plans)), _paths(inputs)
    for other in others:
        phases += tuple(_model(ModelSizes(_with_states_left(spec, phases), other, plans, present)))
        present |= _paths(other)
    most = accumulate((phase.memory for phase in phases), max)  # what a phase frees is not all given back
    phases = tuple(phase.model_copy(update={"memory": memory}) for phase, memory in zip(phases, most, strict=True))
    grown, disk = 0, 0
    for phase in phases:
        grown += phase.disk
        disk = max(disk, grown + phase.scratch)
    return Estimate(
        phases=phases,
        bundle=grown,
        disk=disk,
        disk_free=room.free_disk(output.parent) + kept_bytes(output),
        memory=phases[-1].memory,
        memory_free=room.free_memory() + room.resident(),
        seconds=sum(phase.seconds for phase in phases),
    )


def refuse_without_room(needed: Estimate, output: Path) -> None:
    """Refuse an export for which the disk or the memory is not there.

    Raises:
        RoomError: it says what is needed and what there is.

    """
    if needed.disk > needed.disk_free:
        raise RoomError(
            f"the disk of {output}",
            found=f"{gigabytes(needed.disk_free)} free",
            expected=f"{gigabytes(needed.disk)}, of which {gigabytes(needed.bundle)} stay",
            fix="Free some, name an output on another disk, or export with --no-parity or --prefix-states-mb 0.",
        )
    if needed.memory > needed.memory_free:
        largest = max(needed.phases, key=lambda phase: phase.memory)
        less = "with --no-parity" if largest.name == PhaseName.COMPARISON else "with fewer merged adapters"
        raise RoomError(
            "memory",
            found=f"{gigabytes(needed.memory_free)} free, swap included",
            expected=f"{gigabytes(needed.memory)}, to {largest.name}",
            fix=f"End other programs, add swap, or export {less}; --force begins all the same.",
        )


def gigabytes(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _primary_model(spec: ExportSpec, inputs: Inputs, plans: Plans) -> Iterator[PhaseNeed]:
    """The phases of the primary model, each by the recipe that needs most."""
    recipes = quantizations_for(spec, inputs.profile)
    sizes = ModelSizes(spec, inputs, plans, recipes=len(recipes))
    found = [need for recipe in recipes for need in _model(sizes.quantized(recipe))]
    for name in PhaseName:  # a recipe may have a phase that others lack
        needs = [need for need in found if need.name == name]
        if not needs:
            continue
        yield PhaseNeed(
            name=name,
            disk=max(need.disk for need in needs),
            scratch=max(need.scratch for need in needs),
            memory=max(need.memory for need in needs),
            seconds=max(need.seconds for need in needs),
        )


def _model(sizes: ModelSizes) -> Iterator[PhaseNeed]:
    """The phases of one model, in order."""
    speed, texts = room.hash_speed() / _HASHED, _TEXT * sizes.shape.texts
    states = NEEDS[PhaseName.STATES](sizes)
    for name in PhaseName:
        need = NEEDS[name](sizes) if name in NEEDS else None
        if need:
            yield PhaseNeed(
                name=name,
                disk=need.disk,
                # The comparison computes the states.
                scratch=need.scratch + (states.disk if states and name == PhaseName.COMPARISON else 0),
                memory=need.memory + texts,
                seconds=round(need.seconds / speed, 1),
            )


def _paths(inputs: Inputs) -> frozenset[str]:
    """Paths of a model in the bundle that another model may share."""
    return frozenset({inputs.layout.model, *(bundled.path for bundled in inputs.bundled_adapters)})


def _with_states_left(spec: ExportSpec, phases: Sequence[PhaseNeed]) -> ExportSpec:
    """The spec with the MB that earlier models' prefix states leave."""
    if spec.prefix_states_mb is None:
        return spec
    written = sum(phase.disk for phase in phases if phase.name == PhaseName.STATES)
    return spec.model_copy(update={"prefix_states_mb": max(0, spec.prefix_states_mb - -(-written // MB))})
