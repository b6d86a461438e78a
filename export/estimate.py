"""What an export will need, told before it begins: disk, memory and time, from shapes, settings and prompts.

Disk and memory are upper bounds: an export that begins finds the room that it needs. docs/performance.md says how far
they are off. Time is rough: what the same work took on one machine, by how fast this one hashes and how many cores it
has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Final

from transformers import AutoConfig

from dualtune_edge.export.compare.bundle import depth_of
from dualtune_edge.export.plan.inputs import Inputs, quantizations_for
from dualtune_edge.export.plan.layout import BundledAdapter
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.plan.spec import ExportSpec, ParitySpec
from dualtune_edge.export.plan.subjects import subjects
from dualtune_edge.export.reference import torch_engine
from dualtune_edge.export.reference.first_layers import on_tables
from dualtune_edge.export.reference.streamed import LARGE
from dualtune_edge.export.sizes import BaseShape, adapter_bytes, adapter_stored, base_shape, graph_bytes
from dualtune_edge.export.states.write import planned as planned_states
from dualtune_edge.export.work import room
from dualtune_edge.export.work.folder import kept_bytes
from dualtune_edge.profiles.detect import detect
from dualtune_edge.runtime.engines import ort_engine
from dualtune_edge.toolkit.bundle.manifest import Quantization
from dualtune_edge.toolkit.errors import RoomError
from dualtune_edge.toolkit.frozen import Frozen

COMPARE: Final = "compare with PEFT"
_STATES: Final = "prefix states"
_WHOLE: Final = Quantization(bits=32)
_MB: Final = 1_000_000
# Resident memory, in bytes. Measured: see docs/performance.md.
_LIBRARIES: Final = 520 * _MB  # PyTorch, transformers, PEFT, onnxruntime, the builder
_COMPARING: Final = 150 * _MB  # besides: the model's code, tokenizers and grammars
_BUILDING: Final = 80 * _MB  # besides: the builder
_HEAD_PIECE: Final = (
    1 << 24
)  # numbers of the head that the reference reads at a time, 2 bytes as stored and 4 in float32
_PIECE: Final = 1 << 22  # numbers of a weight that are quantized at a time,
_QUANTIZING: Final = {"default": 16, "rtn": 100, "k_quant": 110}  # in so many bytes each
_A_NUMBER: Final = 4.5  # bytes for each number of the largest matrix, while its quantized pieces are joined
_A_TEXT: Final = 30  # bytes for each byte of tokenizer.json, as tokenizer and grammars hold it
# onnxruntime packs quantized weights for its kernels, one by one, and gives back what the file holds of each. Bytes for
# one of the file: int4 with a scale for 32 1.43, for 64 1.22, for 128 1.06; int8 1.23; computed in float32 less.
_PACKED: Final = 1.45
_LOOKED_UP: Final = 1 << 16  # bytes that Linux maps around each row that is looked up in a table
_CHOICES: Final = 8  # forwards of a choice, and those in which the reference goes another way
# Seconds on one core of a machine that hashes _HASHED bytes a second.
_HASHED: Final = 1.8e9
_START: Final = 3.0
_READ: Final = 1.2e-9  # a byte that is hashed and looked at
_QUANTIZED: Final = 2.2e-8  # a number
_WRITTEN: Final = 1.0e-8  # a byte of an adapter, from PEFT's form to ours
_OPENED: Final = 3.0e-9  # a byte of a graph
_ADAPTER: Final = 0.06  # an adapter, whatever its size
_COMPARED: Final = 0.2  # a stage that is compared, whatever its prompts
_ORT, _TORCH = 9.0e10, 5.0e10  # multiplications and additions


class StageNeed(Frozen):
    """One stage. Bytes that it leaves on the disk, that it takes there meanwhile besides, and of memory until then."""

    name: str
    disk: int
    scratch: int
    memory: int
    seconds: float


class Estimate(Frozen):
    """`disk`: the most that lies on the disk at a time, in bytes; `bundle`: what stays. `…_free`: what there is."""

    stages: tuple[StageNeed, ...]
    bundle: int
    disk: int
    disk_free: int
    memory: int
    memory_free: int
    seconds: float


def estimate(spec: ExportSpec, inputs: Inputs, plans: Plans, output: Path, others: Sequence[Inputs] = ()) -> Estimate:
    """Of an export to `output` that has nothing to go on from; what an earlier one left there counts as free disk.

    `others`: of the further models of a bundle for several profiles. With `quantization: auto` each stage is that of
    the recipe which needs most; time is that of one recipe.
    """
    stages, made = tuple(_of_recipes(spec, inputs, plans)), _paths(inputs)
    for each in others:
        stages += tuple(_Estimator(_with_states_left(spec, stages), each, plans, made).stages())
        made |= _paths(each)
    most = accumulate((stage.memory for stage in stages), max)  # what a stage frees is not all given back
    stages = tuple(stage.model_copy(update={"memory": memory}) for stage, memory in zip(stages, most, strict=True))
    grown, disk = 0, 0
    for stage in stages:
        grown += stage.disk
        disk = max(disk, grown + stage.scratch)
    return Estimate(
        stages=stages,
        bundle=grown,
        disk=disk,
        disk_free=room.free_disk(output.parent) + kept_bytes(output),
        memory=stages[-1].memory,
        memory_free=room.free_memory() + room.resident(),
        seconds=sum(stage.seconds for stage in stages),
    )


def _paths(inputs: Inputs) -> frozenset[str]:
    """What a model has in the bundle that another one may share."""
    return frozenset({inputs.layout.model, *(bundled.path for bundled in inputs.bundled_adapters)})


def _with_states_left(spec: ExportSpec, stages: Sequence[StageNeed]) -> ExportSpec:
    """The spec with what earlier models' prefix states leave of the bytes for them."""
    if spec.prefix_states_mb is None:
        return spec
    written = sum(stage.disk for stage in stages if stage.name == _STATES)
    return spec.model_copy(update={"prefix_states_mb": max(0, spec.prefix_states_mb - -(-written // _MB))})


def _of_recipes(spec: ExportSpec, inputs: Inputs, plans: Plans) -> Iterator[StageNeed]:
    """Stages of the primary model, by whichever recipe needs most."""
    recipes = quantizations_for(spec, inputs.profile)
    each = [_Estimator(spec, replace(inputs, quantization=recipe), plans).stages() for recipe in recipes]
    for needs in zip(*each, strict=True):
        first = needs[0]
        most = {key: max(getattr(need, key) for need in needs) for key in ("disk", "scratch", "memory", "seconds")}
        if first.name == COMPARE and spec.parity and len(recipes) > 1:
            asked = spec.parity
            positions = len(subjects(plans, asked.prompts)) * asked.prompts * (asked.argument_tokens + _CHOICES)
            most["scratch"] += len(recipes) * positions * 4 * inputs.checkpoint.vocab_size  # `Memory`
        yield first.model_copy(update=most)


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
        worst = max(needed.stages, key=lambda stage: stage.memory)
        less = "with --no-parity" if worst.name == COMPARE else "with fewer merged adapters"
        raise RoomError(
            "memory",
            found=f"{gigabytes(needed.memory_free)} free, swap included",
            expected=f"{gigabytes(needed.memory)}, for the stage: {worst.name}",
            fix=f"End other programs, add swap, or export {less}; --force begins all the same.",
        )


def gigabytes(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


@dataclass(frozen=True)
class _Base:
    """The base as it matters here; sizes in bytes."""

    shape: BaseShape
    graph: int
    hidden: int
    intermediate: int
    scored: int  # heads whose scores are all held: none, unless they are capped

    def activations(self, tokens: int, most: int) -> int:
        """Of a prompt of so many tokens, `most` of them a forward.

        What the layers make of each, the mask of each to each, and scores where they are held.
        """
        step = min(tokens, most)
        return 4 * step * (3 * self.intermediate + 12 * self.hidden) + (8 + 12 * self.scored) * step * tokens


class _Estimator:
    """Of one model; `made`: paths of what earlier models have made."""

    def __init__(self, spec: ExportSpec, inputs: Inputs, plans: Plans, made: frozenset[str] = frozenset()) -> None:
        self._spec, self._inputs, self._plans, self._made = spec, inputs, plans, made
        checkpoint = inputs.checkpoint
        shape = base_shape(checkpoint)
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
        self._base = _Base(
            shape=shape,
            graph=graph_bytes(shape, inputs.quantization),
            hidden=shape.table[1],
            intermediate=max(max(pair) for pair in shape.linear),
            scored=config.num_attention_heads if getattr(config, "attn_logit_softcapping", None) else 0,
        )
        once = {each.path: each for each in inputs.bundled_adapters}.values()
        self._external = [each for each in once if each.adapter.mode == "external"]
        self._merged = [each for each in once if each.adapter.mode == "merged"]
        self._adapters = [adapter_bytes(each.adapter.folder, checkpoint, shape) for each in self._external]
        self._written = [
            size for size, each in zip(self._adapters, self._external, strict=True) if each.path not in made
        ]
        self._speed = room.hash_speed() / _HASHED
        self._cores = detect().cpu.physical_cores
        cache = checkpoint.cache
        self._kv = 2 * cache.layers * cache.heads * cache.head_dim * 4  # bytes a token
        self._longest = max(len(stage.plan.prefix) for stage in plans.stages)

    def stages(self) -> Iterator[StageNeed]:
        """In the export's order."""
        base = self._base
        read = base.shape.stored + sum(adapter_stored(each.adapter.folder) for each in (*self._external, *self._merged))
        count = len(self._external) + len(self._merged)
        yield self._need("read and check", memory=_LIBRARIES, seconds=_START + _READ * read + _ADAPTER * count)
        if self._inputs.kv_type == "int8":
            yield self._measuring()
        if self._inputs.layout.model not in self._made:
            yield self._need(
                "build the base graph",
                disk=base.graph,
                memory=self._building(),
                seconds=_QUANTIZED * base.shape.weights,
            )
        if self._written:
            yield self._need(
                "write adapters",
                disk=sum(self._written),
                memory=_LIBRARIES + 3 * max(self._written),
                seconds=_WRITTEN * sum(self._written) + _ADAPTER * len(self._written),
            )
        if merged := [each for each in self._merged if each.path not in self._made]:
            yield self._merging(merged)
        graphs = base.graph * (1 + len(self._merged))
        yield self._need("try out", memory=self._opened() + self._adapter(), seconds=_OPENED * graphs)
        if self._spec.parity:
            yield self._comparing(self._spec.parity)
        lengths, size = planned_states(self._inputs, self._plans, self._spec)
        if lengths:
            yield self._need(
                _STATES,
                disk=size,
                memory=self._opened() + _COMPARING + self._running(self._longest),
                seconds=self._forward([*lengths, *[1] * self._answered()], _ORT * self._cores) + _OPENED * graphs,
            )
        yield self._need("write manifest", disk=self._around(), seconds=_READ * graphs)

    def _answered(self) -> int:
        """Tokens that are read behind rounded and exact states."""
        parity = self._spec.parity
        as_they_are = self._spec.prefix_states_type == "float32" or self._inputs.kv_type == "int8"
        if parity is None or as_they_are:
            return 0
        return 3 * len(subjects(self._plans, parity.prompts)) * parity.prompts * (parity.argument_tokens + 64)

    def _measuring(self) -> StageNeed:
        """The reference reads two prompts of each stage, the second from the tool list on."""
        shape, tokens = self._base.shape, self._longest + 512
        lengths = [len(stage.plan.prefix) + 256 for stage in self._plans.stages]
        streamed = 0.0 if 4 * shape.weights <= LARGE else _READ * shape.stored * 2 * len(lengths)
        return self._need(
            "measure keys and values",
            memory=_LIBRARIES
            + _COMPARING
            + self._reference(shape)
            + self._base.activations(tokens, torch_engine.CHUNK)
            + 5 * self._kv * tokens,  # besides the cache itself what is made of it: stacked, and by pairs
            seconds=self._forward(lengths, _TORCH * self._cores) + streamed,
        )

    def _need(self, name: str, *, disk: int = 0, scratch: int = 0, memory: int = 0, seconds: float = 0.0) -> StageNeed:
        return StageNeed(
            name=name,
            disk=disk,
            scratch=scratch,
            memory=memory + _A_TEXT * self._base.shape.texts,
            seconds=round(seconds / self._speed, 1),
        )

    def _building(self) -> int:
        shape = self._base.shape
        largest = max(n * k for n, k in (*shape.linear, shape.table))
        piece = _QUANTIZING[self._inputs.quantization.algorithm] * min(largest, _PIECE)
        return _LIBRARIES + _BUILDING + piece + int(_A_NUMBER * largest)

    def _merging(self, merged: Sequence[BundledAdapter]) -> StageNeed:
        shape, quantization = self._base.shape, self._inputs.quantization
        whole = [each for each in merged if not each.adapter.plain]
        largest = max(n * k for n, k in shape.linear)
        folding = 12 * (max(n * k for n, k in (*shape.linear, shape.table)) if whole else largest)
        by_peft = 4 * 4 * shape.weights if whole else 0  # the model in float32, and what safe_merge copies
        return self._need(
            "merge adapters",
            disk=sum(graph_bytes(shape, quantization, tied=self._stays_tied(each)) for each in merged),
            scratch=2 * 4 * shape.weights if whole else 0,
            memory=max(self._building() + folding, _LIBRARIES + by_peft),
            seconds=len(merged) * _QUANTIZED * shape.weights,
        )

    def _stays_tied(self, each: BundledAdapter) -> bool:
        return each.adapter.plain and not each.adapter.extras & {"head", "embedding"} and self._base.shape.tied

    def _opened(self) -> int:
        """With one graph of the bundle open, as it always is, and one adapter in use: the others are not read."""
        held = self._packed(self._base.shape, tied=self._one_table)
        return _LIBRARIES + held + max(self._adapters, default=0)

    def _packed(self, shape: BaseShape, *, tied: bool) -> int:
        """Of an open graph, quantized as the bundle's: what is packed, and the rows of a table that are looked up."""
        quantization = self._inputs.quantization
        whole, table = graph_bytes(shape, quantization, tied=tied), 4 * shape.table[0] * shape.table[1]
        if quantization.bits == 32:
            return whole + (2 * table if tied else 0)  # packed by no more; the builder's table is turned twice
        of_table = 0 if tied and quantization.bits != 8 else table
        return int(_PACKED * (whole - of_table)) + min(of_table, self._rows)

    @property
    def _rows(self) -> int:
        """Of a table in float32, what a prompt looks up."""
        return self._longest * (_LOOKED_UP + 4 * self._base.hidden)

    @property
    def _one_table(self) -> bool:
        """Whether embedding and head are one in every graph."""
        return self._base.shape.tied and all(map(self._stays_tied, self._merged))

    def _running(self, tokens: int) -> int:
        return self._base.activations(tokens, ort_engine.CHUNK) + 3 * self._kv * tokens

    def _comparing(self, parity: ParitySpec) -> StageNeed:
        """Two passes, one behind the other: on the bundle's graphs or their first layers, and before quantization."""
        shape, depth = self._base.shape, depth_of(self._inputs, parity)
        compared, before = shape.first(depth.compared), shape.first(depth.before_quantization or 0)
        own = depth.compared == depth.layers
        tokens = self._longest + parity.argument_tokens + 512  # a message, and what is written
        again = depth.before_quantization if self._inputs.quantization.bits != 32 else None
        kept = 1 + bool(self._merged)  # graphs on the disk: the base's and a merged one
        cut = graph_bytes(compared, self._inputs.quantization)
        whole = graph_bytes(before, _WHOLE, tied=self._one_table)
        reference = self._reference(compared) + self._base.activations(tokens, torch_engine.CHUNK)
        first = self._packed(compared, tied=self._one_table) + reference
        second = 0
        if again:  # its weights are mapped as they are; the reference reads once more where depths differ
            second = min(whole, graph_bytes(before, _WHOLE, tied=True) + self._rows) + self._adapter()
            second += reference if again != depth.compared or 4 * shape.weights <= LARGE else 0
        unlike = 2 * 4 * shape.weights if not all(each.adapter.plain for each in self._merged) else 0
        asked = subjects(self._plans, parity.prompts)
        read = [len(each.stage.plan.prefix) + parity.prompts * (parity.argument_tokens + 64) for each in asked]
        share = (depth.compared + (again or 0)) / depth.layers
        calibration = 1 if parity.calibration is None else 3
        streamed = 0.0 if 4 * shape.weights <= LARGE else _READ * shape.stored * len(asked) * parity.prompts * 2
        forwards = self._forward(read, _ORT * self._cores) + self._forward(read, _TORCH * self._cores)
        return self._need(
            COMPARE,
            scratch=max(0 if own else kept * cut, kept * whole if again else 0) + (unlike if again or not own else 0),
            memory=_LIBRARIES
            + _COMPARING
            + max(self._adapters, default=0)
            + max(first, second, 0 if own and not again else self._building() - _LIBRARIES)
            + self._running(tokens),
            seconds=calibration * share * (forwards + streamed)
            + _COMPARED * len(asked)
            + (0 if own else _QUANTIZED * compared.weights)
            + (_QUANTIZED * before.weights if again else 0),
        )

    def _reference(self, shape: BaseShape) -> int:
        """PyTorch's model: whole where it is small, else a layer and some rows of the tables at a time."""
        if 4 * self._base.shape.weights <= LARGE:
            return 2 * 4 * shape.weights + self._adapter()
        tables = any(on_tables(each.adapter.folder) for each in (*self._external, *self._merged))
        pieces = 2 * 6 * _HEAD_PIECE if not tables else 2 * 4 * shape.table[0] * shape.table[1]
        return 2 * 4 * shape.layer + pieces + self._adapter()

    def _adapter(self) -> int:
        """As PEFT, or onnxruntime, reads one: the file and a copy."""
        return 2 * max(self._adapters, default=0)

    def _forward(self, prompts: Sequence[int], speed: float) -> float:
        """Of prompts of so many tokens; each token attends to half of its prompt."""
        linear, attention = sum(n * k for n, k in self._base.shape.linear), self._base.hidden * self._base.shape.layers
        return sum(2 * tokens * (linear + attention * tokens) for tokens in prompts) / speed

    def _around(self) -> int:
        """Prompts, manifest, journal: texts of the tools, once a stage."""
        plans: Sequence[int] = [len(stage.plan.model_dump_json()) for stage in self._plans.stages]
        return 2 * sum(plans) + 6_000 * len(plans) + 4_000 * self._base.shape.layers + 200_000
