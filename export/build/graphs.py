"""The graphs and adapters of a bundle: built where they are not there yet, and tried out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from dualtune_edge.export.adapter.merge import merged_weights
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.base.weights import UnchangedWeights, UntiedWeights, Weights
from dualtune_edge.export.build.kv_scales import KvPrompt, KvScales, measure
from dualtune_edge.export.build.trial import Logits, Trial, refuse_without_effect
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.checks import check_onnx
from dualtune_edge.export.graph.kv_type import store_kv_in_int8
from dualtune_edge.export.graph.model_files import MODEL
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.graph.slots import add_slots, add_spare_inputs
from dualtune_edge.export.plan.entries import dynamic_model, model_source
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.layout import BundledAdapter
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.plan.steps import Steps
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.export.work.folder import Work, files_in
from dualtune_edge.export.work.journal import Step
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.manifest import CacheShape, Mode, Quantization
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.prompts.prompter import PromptPlan

_GRAPH_FILES: Final = frozenset({"model.onnx", "model.onnx.data", "genai_config.json"})
_TRIAL_TOKENS: Final = 16  # of a stage's own prompt: enough for every layer to attend to something
_SLOTS: Final = TypeAdapter(SlotMap)


class BundleGraphs:
    """The graphs of one export: `build` and `try_out` make what its work folder does not hold yet.

    Args:
        inputs: what was read.
        work: where the bundle grows.
        progress: shows a bar for each phase.
        kv_prompts: what the scales of a KV cache in int8 are measured on.

    """

    def __init__(self, inputs: Inputs, work: Work, progress: Progress, kv_prompts: Sequence[KvPrompt] = ()) -> None:
        self._inputs, self._work, self._progress, self._kv_prompts = inputs, work, progress, kv_prompts
        self._steps, self._base = Steps(inputs, kv_prompts), inputs.layout.model
        self._bundled = inputs.bundled_adapters
        self._external, self._merged = (_once(self._bundled, mode) for mode in ("external", "merged"))
        self._by_name = {each.adapter.name: each for each in self._bundled}

    @property
    def cache(self) -> CacheShape:
        """The KV cache of the graphs, once they are built."""
        scales = self._kv_scales
        update = {"dtype": "int8", "scales": scales.sha256} if scales else {}
        return self._inputs.checkpoint.cache.model_copy(update=update)

    @property
    def paths(self) -> dict[str, str]:
        """Adapter's name → its file or folder in the bundle."""
        return {each.adapter.name: each.path for each in self._bundled}

    @property
    def source(self) -> ModelSource:
        """What an engine opens, once the graphs are built."""
        return model_source(self._inputs, self._work.folder, dynamic_model(self._inputs, self.cache))

    def build(self) -> None:
        """The base graph with its slots, the external adapters, and a graph for each merged one.

        Raises:
            EdgeError: what cannot be built, and why.

        """
        if self._inputs.kv_type == "int8":
            with self._progress.phase(PhaseName.KV_SCALES, len(self._kv_prompts)) as phase:
                if not self._work.has(self._steps.kv_scales):
                    measured = measure(self._inputs, self._kv_prompts, phase.advance)
                    self._work.keep(self._steps.kv_scales, value=measured.to_text())
        with self._progress.phase(PhaseName.BASE):
            self._build_base()
        with self._progress.phase(PhaseName.SLOTS):
            self._add_slots()
        if self._external:
            with self._progress.phase(PhaseName.ADAPTERS, len(self._external)) as phase:
                for each in self._external:
                    self._write_adapter(each)
                    phase.advance()
        if self._merged:
            with self._progress.phase(PhaseName.MERGED, len(self._merged)) as phase:
                for each in self._merged:
                    self._merge(each)
                    phase.advance()

    def build_compared(self, out: Path, base: Checkpoint, quantization: Quantization, merged: str | None) -> None:
        """A graph for comparisons: the base's with its slots, or that of a merged adapter.

        Args:
            out: a new folder.
            base: the checkpoint or its first layers.
            quantization: in float32, or as the bundle's graph: then what is quantized is copied from there.
            merged: the adapter's name; None: the base's.

        """
        own = self._work.folder / (self._base if merged is None else self._by_name[merged].path)
        kept = own if quantization == self._inputs.quantization else None
        whole, decoder = self._inputs.checkpoint, self._inputs.decoder
        source: Weights
        if decoder:
            decoder = replace(decoder, layers=decoder.layers[: base.cache.layers])
        if merged is None:
            stored = whole.weights
            source = stored if kept else UntiedWeights(stored)
            build_graph(base, out, quantization, weights=source, base=kept, decoder=decoder)
            self._write_slots(out)
            add_spare_inputs(out, own)
            self._set_kv_type(out, base.cache.layers if kept else 0)
            return
        adapter = self._by_name[merged].adapter.weights(whole)
        with merged_weights(whole, adapter, scratch=self._work.scratch) as weights:
            source = UnchangedWeights(weights) if kept else UntiedWeights(weights)
            build_graph(base, out, quantization, weights=source, base=kept, decoder=decoder)
        self._set_kv_type(out, base.cache.layers if kept else 0)

    def made_of(self, adapter: str | None) -> tuple[str, ...]:
        """What a forward under an adapter depends on; None: the base."""
        bundled = self._by_name[adapter] if adapter else None
        if bundled is None:
            return self._steps.made_of(None, "", self._extras)
        return self._steps.made_of(bundled.adapter, bundled.path, self._extras)

    def compared(self, subject: Subject, settings: object) -> Step:
        """A stage's comparison with PEFT, as it depends on its graph, its prompts and `settings` (as JSON has them)."""
        adapter = subject.stage.adapter
        return self._steps.compared(subject, self.made_of(adapter.name if adapter else None), settings)

    def reference(self, layers: int) -> Step:
        """What PEFT reads, on the first layers, in comparisons with graphs of any quantization."""
        return self._steps.reference(layers)

    def state(self, path: str, adapter: str | None, tokens: Sequence[int], settings: object) -> Step:
        """The state of a prefix under an adapter, stored as `settings` (as JSON has them) say."""
        return self._steps.state(path, self.made_of(adapter), tokens, settings)

    def try_out(self, plans: Plans) -> None:
        """Run a forward of the base, of the base under each external adapter, and of each merged graph.

        Raises:
            GraphError: one fails, or an adapter changes nothing.

        """
        prompts = {planned.adapter.name: _some_tokens(planned.plan) for planned in plans.stages if planned.adapter}
        with self._progress.phase(PhaseName.TRIAL, 1 + len(self._external) + len(self._merged)) as phase:
            for _ in self._try_base(_some_tokens(next(plans.stages).plan), prompts):
                phase.advance()
            for each in self._merged:  # each graph is as large as the base: one at a time
                step = self._tried(each, prompts[each.adapter.name])
                if not self._work.has(step):
                    self._trial(each.path).logits(prompts[each.adapter.name])
                    self._work.keep(step)
                phase.advance()

    @cached_property
    def _kv_scales(self) -> KvScales | None:
        """None: the cache is in float32."""
        if self._inputs.kv_type != "int8":
            return None
        return KvScales.from_text(self._work.value(self._steps.kv_scales), self._inputs.checkpoint)

    def _set_kv_type(self, folder: Path, layers: int) -> None:
        """Of a graph of so many of the first layers; 0: it is one in float32."""
        if layers and self._kv_scales:
            store_kv_in_int8(folder, self._kv_scales.values[:layers])

    @property
    def _extras(self) -> frozenset[Extra]:
        return frozenset(extra for each in self._external for extra in each.adapter.extras)

    @property
    def _slots(self) -> str:
        return self._work.value(self._steps.slots(self._extras))

    def _build_base(self) -> None:
        work, steps = self._work, self._steps
        if work.has(steps.weights) and (self._plain.exists() or work.has(steps.slots(self._extras))):
            return
        model = work.folder / self._base
        work.clear(model)
        build_graph(self._inputs.checkpoint, model, self._inputs.quantization, decoder=self._inputs.decoder)
        (model / MODEL).replace(self._plain)
        work.keep(steps.weights, self._plain, *files_in(model))

    def _add_slots(self) -> None:
        """On a copy of the graph: it names its weights, and does not hold them."""
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
        return self._work.scratch / f"{safe_name(self._base.replace('/', '.'))}.onnx"

    def _write_adapter(self, each: BundledAdapter) -> None:
        step = self._steps.external(each.adapter, each.path, self._slots)
        if self._work.has(step):
            return
        path = self._work.folder / each.path
        self._work.clear(path)
        write_adapter(each.adapter.weights(self._inputs.checkpoint), _SLOTS.validate_json(self._slots), path)
        self._work.keep(step, path)

    def _merge(self, each: BundledAdapter) -> None:
        step = self._steps.merged(each.adapter, each.path)
        if self._work.has(step):
            return
        base, decoder = self._inputs.checkpoint, self._inputs.decoder
        out, own = self._work.folder / each.path, self._work.folder / self._base
        self._work.clear(out)
        adapter = each.adapter.weights(base)
        with merged_weights(base, adapter, scratch=self._work.scratch) as weights:
            build_graph(base, out, self._inputs.quantization, weights=weights, base=own, decoder=decoder)
        self._set_kv_type(out, base.cache.layers)
        check_onnx(out / MODEL)
        for file in out.iterdir():
            if file.name not in _GRAPH_FILES:  # the tokenizer is the base's, in model/
                file.unlink()
        self._work.keep(step, *files_in(out))

    def _try_base(self, tokens: Sequence[int], prompts: dict[str, tuple[int, ...]]) -> Iterator[None]:
        base: Trial | None = None
        plain: dict[tuple[int, ...], Logits] = {}  # prompts begin alike: one forward of the base for many adapters
        steps: list[tuple[Step, BundledAdapter | None]] = [
            (self._steps.tried(self._base, self.made_of(None), tokens), None)
        ]
        steps += [(self._tried(each, prompts[each.adapter.name]), each) for each in self._external]
        for step, each in steps:
            if not self._work.has(step):
                base = base or self._trial(self._base)
                if each is None:
                    base.logits(tokens)
                else:
                    own = prompts[each.adapter.name]
                    name, path = each.adapter.name, self._work.folder / each.path
                    plain[own] = plain[own] if own in plain else base.logits(own)
                    refuse_without_effect(name, plain[own], base.logits(own, path))
                self._work.keep(step)
            yield

    def _tried(self, each: BundledAdapter, tokens: Sequence[int]) -> Step:
        return self._steps.tried(each.path, self.made_of(each.adapter.name), tokens)

    def _trial(self, path: str) -> Trial:
        return Trial(self._work.folder / path, self.cache)


def _once(adapters: tuple[BundledAdapter, ...], mode: Mode) -> list[BundledAdapter]:
    """One adapter a file of this mode."""
    return list({each.path: each for each in reversed(adapters) if each.adapter.mode == mode}.values())[::-1]


def _some_tokens(plan: PromptPlan) -> tuple[int, ...]:
    """Any token serves where a template begins with the message, and so has no prefix."""
    return plan.prefix[:_TRIAL_TOKENS] or (0,)
