"""The graphs and adapters of one model, built where the work folder does not hold them yet."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from dualtune_edge.export.adapter.merge import merged_weights
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.base.weights import UnchangedWeights, UntiedWeights, Weights
from dualtune_edge.export.build.input_moments import measure_inputs
from dualtune_edge.export.build.kv_scales import KvScales, measure
from dualtune_edge.export.build.measured_prompts import MeasuredPrompt
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.checks import check_onnx
from dualtune_edge.export.graph.kv_type import store_kv_in_int8
from dualtune_edge.export.graph.model_files import MODEL
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.graph.slots import add_slots, add_spare_inputs
from dualtune_edge.export.plan.inputs import Inputs, dynamic_model, model_source
from dualtune_edge.export.plan.layout import BundledAdapter
from dualtune_edge.export.plan.steps import Steps
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.export.work.folder import Work, files_in
from dualtune_edge.export.work.journal import Step
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.files import safe_name

_GRAPH_FILES: Final = frozenset({"model.onnx", "model.onnx.data", "genai_config.json"})
_SLOTS: Final = TypeAdapter(SlotMap)


class BundleGraphs:
    """The graphs of one model; `build` makes what the work folder does not hold yet.

    Args:
        inputs: what the model is made of.
        work: the folder of the export.
        progress: shows a bar for each phase.
        prompts: those that scales of a KV cache in int8, and the moments of GPTQ, are measured on.

    """

    def __init__(self, inputs: Inputs, work: Work, progress: Progress, prompts: Sequence[MeasuredPrompt] = ()) -> None:
        self._inputs, self._work, self._progress, self._prompts = inputs, work, progress, prompts
        self._steps, self._base = Steps(inputs, prompts), inputs.layout.model
        self._by_name = {bundled.adapter.name: bundled for bundled in inputs.bundled_adapters}
        self.external = _one_per_file(inputs.bundled_adapters, "external")
        self.merged = _one_per_file(inputs.bundled_adapters, "merged")

    @property
    def cache(self) -> CacheShape:
        """The KV cache of the graphs, once they are built."""
        scales = self._kv_scales
        update = {"dtype": "int8", "scales": scales.sha256} if scales else {}
        return self._inputs.checkpoint.cache.model_copy(update=update)

    @property
    def paths(self) -> dict[str, str]:
        """Name of an adapter → its file or folder in the bundle."""
        return {name: bundled.path for name, bundled in self._by_name.items()}

    @property
    def source(self) -> ModelSource:
        """What an engine opens, once the graphs are built."""
        return model_source(self._inputs, self._work.folder, dynamic_model(self._inputs, self.cache))

    def build(self) -> None:
        """Build the base's graph with its slots, the external adapters, and a graph for each merged adapter.

        Raises:
            EdgeError: what cannot be built, and why.

        """
        if self._inputs.kv_type == "int8":
            with self._progress.phase(PhaseName.KV_SCALES, len(self._prompts)) as phase:
                if not self._work.has(self._steps.kv_scales):
                    measured = measure(self._inputs, self._prompts, phase.advance)
                    self._work.keep(self._steps.kv_scales, value=measured.to_text())
        if self._moments:
            with self._progress.phase(PhaseName.MOMENTS, len(self._prompts)) as phase:
                if not self._work.has(self._steps.moments):
                    measure_inputs(self._inputs, self._prompts, self._moments, phase.advance)
                    self._work.keep(self._steps.moments, self._moments)
        with self._progress.phase(PhaseName.BASE):
            self._build_base()
        with self._progress.phase(PhaseName.SLOTS):
            self._add_slots()
        if self.external:
            with self._progress.phase(PhaseName.ADAPTERS, len(self.external)) as phase:
                for bundled in self.external:
                    self._write_adapter(bundled)
                    phase.advance()
        if self.merged:
            with self._progress.phase(PhaseName.MERGED, len(self.merged)) as phase:
                for bundled in self.merged:
                    self._merge(bundled)
                    phase.advance()

    def build_compared(self, out: Path, base: Checkpoint, quantization: Quantization, merged: str | None) -> None:
        """Build a graph for comparisons: the base's with its slots, or that of a merged adapter.

        Args:
            out: a new folder.
            base: the checkpoint or its first layers.
            quantization: that of the bundle's graphs, whose quantized weights are then copied, or float32.
            merged: the adapter's name; None: the base's graph.

        """
        whole, decoder = self._inputs.checkpoint, self._inputs.decoder
        bundles_own = self._work.folder / (self._base if merged is None else self._by_name[merged].path)
        copied = bundles_own if quantization == self._inputs.quantization else None
        moments = self._moments if copied else None
        if decoder:
            decoder = replace(decoder, layers=decoder.layers[: base.cache.layers])
        source: Weights
        if merged is None:
            source = whole.weights if copied else UntiedWeights(whole.weights)
            build_graph(base, out, quantization, weights=source, base=copied, decoder=decoder, moments=moments)
            self._write_slots(out)
            add_spare_inputs(out, bundles_own)
        else:
            adapter = self._by_name[merged].adapter.weights(whole)
            with merged_weights(whole, adapter, scratch=self._work.scratch) as weights:
                source = UnchangedWeights(weights) if copied else UntiedWeights(weights)
                build_graph(base, out, quantization, weights=source, base=copied, decoder=decoder, moments=moments)
        self._set_kv_type(out, base.cache.layers if copied else 0)

    def made_of(self, adapter: str | None) -> tuple[str, ...]:
        """Keys of all that a forward under an adapter depends on; None: the base."""
        bundled = self._by_name[adapter] if adapter else None
        if bundled is None:
            return self._steps.made_of(None, "", self._extras)
        return self._steps.made_of(bundled.adapter, bundled.path, self._extras)

    def compared(self, subject: Subject, settings: object) -> Step:
        """A stage's comparison with PEFT; `settings`, as JSON has them, are part of its key."""
        return self._steps.compared(subject, self.made_of(subject.stage.adapter_name), settings)

    def reference(self, layers: int) -> Step:
        """What PEFT reads, on the first layers, in comparisons with graphs of any quantization."""
        return self._steps.reference(layers)

    def state(self, path: str, adapter: str | None, tokens: Sequence[int], settings: object) -> Step:
        """The state of a prefix under an adapter; `settings`, as JSON has them, are part of its key."""
        return self._steps.state(path, self.made_of(adapter), tokens, settings)

    def tried(self, bundled: BundledAdapter | None, tokens: Sequence[int]) -> Step:
        """A forward of the base, under an external adapter, or of a merged adapter's graph."""
        if bundled is None:
            return self._steps.tried(self._base, self.made_of(None), tokens)
        return self._steps.tried(bundled.path, self.made_of(bundled.adapter.name), tokens)

    @cached_property
    def _kv_scales(self) -> KvScales | None:
        """None: the cache is in float32."""
        if self._inputs.kv_type != "int8":
            return None
        return KvScales.from_text(self._work.value(self._steps.kv_scales), self._inputs.checkpoint)

    def _set_kv_type(self, folder: Path, layers: int) -> None:
        """Store the KV cache of a graph of so many of the first layers in int8; 0: it is a graph in float32."""
        if layers and self._kv_scales:
            store_kv_in_int8(folder, self._kv_scales.values[:layers])

    @property
    def _extras(self) -> frozenset[Extra]:
        return frozenset(extra for bundled in self.external for extra in bundled.adapter.extras)

    @property
    def _slots(self) -> str:
        return self._work.value(self._steps.slots(self._extras))

    def _build_base(self) -> None:
        work, steps = self._work, self._steps
        if work.has(steps.weights) and (self._plain.exists() or work.has(steps.slots(self._extras))):
            return
        model = work.folder / self._base
        work.clear(model)
        inputs = self._inputs
        build_graph(inputs.checkpoint, model, inputs.quantization, decoder=inputs.decoder, moments=self._moments)
        (model / MODEL).replace(self._plain)
        work.keep(steps.weights, self._plain, *files_in(model))

    def _add_slots(self) -> None:
        """Add them to a copy of the graph, which names its weights and does not hold them."""
        step = self._steps.slots(self._extras)
        if self._work.has(step):
            return
        path = self._work.folder / self._base / MODEL
        self._work.clear(path)
        shutil.copyfile(self._plain, path)
        slots = self._write_slots(path.parent)
        self._set_kv_type(path.parent, self._inputs.checkpoint.cache.layers)
        check_onnx(path)
        self._work.keep(step, path, value=_SLOTS.dump_json(slots).decode())

    def _write_slots(self, folder: Path) -> SlotMap:
        packed = self._inputs.checkpoint.architecture.packed
        return add_slots(folder, packed=packed, extras=self._extras, transposed=self._inputs.transposed_slots)

    @property
    def _plain(self) -> Path:
        """The base's graph without slots."""
        return self._work.scratch / f"{safe_name(self._base.replace('/', '.'))}.onnx"

    @property
    def _moments(self) -> Path | None:
        """The file of the inputs' second moments; None: the recipe needs none."""
        if self._inputs.quantization.algorithm != "gptq":
            return None
        return self._work.scratch / f"{safe_name(self._base.replace('/', '.'))}.moments"

    def _write_adapter(self, bundled: BundledAdapter) -> None:
        step = self._steps.external(bundled.adapter, bundled.path, self._slots)
        if self._work.has(step):
            return
        path = self._work.folder / bundled.path
        self._work.clear(path)
        write_adapter(bundled.adapter.weights(self._inputs.checkpoint), _SLOTS.validate_json(self._slots), path)
        self._work.keep(step, path)

    def _merge(self, bundled: BundledAdapter) -> None:
        step = self._steps.merged(bundled.adapter, bundled.path)
        if self._work.has(step):
            return
        checkpoint, decoder = self._inputs.checkpoint, self._inputs.decoder
        out, base = self._work.folder / bundled.path, self._work.folder / self._base
        self._work.clear(out)
        adapter = bundled.adapter.weights(checkpoint)
        with merged_weights(checkpoint, adapter, scratch=self._work.scratch) as weights:
            build_graph(
                checkpoint,
                out,
                self._inputs.quantization,
                weights=weights,
                base=base,
                decoder=decoder,
                moments=self._moments,
            )
        self._set_kv_type(out, checkpoint.cache.layers)
        check_onnx(out / MODEL)
        for file in out.iterdir():
            if file.name not in _GRAPH_FILES:  # the tokenizer is the base's, in model/
                file.unlink()
        self._work.keep(step, *files_in(out))


def _one_per_file(adapters: Sequence[BundledAdapter], mode: Mode) -> tuple[BundledAdapter, ...]:
    """The first adapter of each file of this mode."""
    files: dict[str, BundledAdapter] = {}
    for bundled in adapters:
        if bundled.adapter.mode == mode:
            files.setdefault(bundled.path, bundled)
    return tuple(files.values())
