"""The sizes of one model, by which each phase says what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.layout import BundledAdapter
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.reference import torch_engine
from dualtune_edge.export.reference.first_layers import on_tables
from dualtune_edge.export.reference.streamed import LARGE
from dualtune_edge.export.sizes.files import BaseShape, adapter_bytes, base_shape, graph_bytes
from dualtune_edge.export.sizes.need import LIBRARIES
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.profiles.detect import detect
from dualtune_edge.runtime.engines import ort_engine
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.quantization import Quantization

# onnxruntime packs quantized weights for its kernels, one by one, and gives back what the file holds of each. Bytes for
# one of the file: int4 with a scale for 32 1.43, for 64 1.22, for 128 1.06; int8 1.23; computed in float32 less.
_PACKED: Final = 1.45
_LOOKED_UP: Final = 1 << 16  # bytes that Linux maps around each row that is looked up in a table
_HEAD_PIECE: Final = 1 << 24  # numbers of the head that the reference reads at a time: 2 bytes as stored, 4 in float32


@dataclass(frozen=True)
class ModelSizes:
    """One model of an export; sizes are in bytes.

    Args:
        spec: what is exported.
        inputs: what the model is made of.
        plans: the stages.
        present: paths in the bundle that earlier models have written.
        recipes: the number of recipes that are tried.

    """

    spec: ExportSpec
    inputs: Inputs
    plans: Plans
    present: frozenset[str] = frozenset()
    recipes: int = 1

    @cached_property
    def shape(self) -> BaseShape:
        """The base's weights."""
        return base_shape(self.inputs.checkpoint)

    @cached_property
    def graph(self) -> int:
        """The folder of the base's graph."""
        return graph_bytes(self.shape, self.inputs.quantization)

    @property
    def graphs(self) -> int:
        """The folders of all graphs."""
        return self.graph * (1 + len(self.merged))

    @property
    def hidden(self) -> int:
        """The width of the base."""
        return self.shape.table[1]

    @cached_property
    def external(self) -> tuple[BundledAdapter, ...]:
        """The external adapters, one for each file."""
        return self._of_mode("external")

    @cached_property
    def merged(self) -> tuple[BundledAdapter, ...]:
        """The merged adapters, one for each graph."""
        return self._of_mode("merged")

    def written(self, adapters: Sequence[BundledAdapter]) -> tuple[BundledAdapter, ...]:
        """The adapters whose files no earlier model has written."""
        return tuple(bundled for bundled in adapters if bundled.path not in self.present)

    def adapter_file(self, bundled: BundledAdapter) -> int:
        """The file of an external adapter."""
        return adapter_bytes(bundled.adapter.folder, self.inputs.checkpoint, self.shape)

    @cached_property
    def largest_adapter(self) -> int:
        """The largest file of an external adapter; 0 without one."""
        return max(map(self.adapter_file, self.external), default=0)

    @property
    def adapter_memory(self) -> int:
        """An adapter while PEFT or onnxruntime reads it: the file and a copy."""
        return 2 * self.largest_adapter

    @property
    def token_kv(self) -> int:
        """The KV cache of a token, in float32."""
        cache = self.inputs.checkpoint.cache
        return 2 * cache.layers * cache.heads * cache.head_dim * 4

    @cached_property
    def longest_prefix(self) -> int:
        """Tokens of the longest static prefix."""
        return max(len(stage.plan.prefix) for stage in self.plans.stages)

    @cached_property
    def cores(self) -> int:
        """The physical cores that an export computes on."""
        return min(detect().cpu.physical_cores, THREADS)

    def stays_tied(self, bundled: BundledAdapter) -> bool:
        """Whether embedding and head of a merged adapter's graph are one table."""
        adapter = bundled.adapter
        return adapter.plain and not adapter.extras & {"head", "embedding"} and self.shape.tied

    @cached_property
    def one_table(self) -> bool:
        """Whether embedding and head are one table in every graph."""
        return self.shape.tied and all(map(self.stays_tied, self.merged))

    @property
    def opened(self) -> int:
        """Memory with one graph of the bundle open, as it always is, and one adapter in use."""
        return LIBRARIES + self.packed(self.shape, tied=self.one_table) + self.largest_adapter

    def packed(self, shape: BaseShape, *, tied: bool) -> int:
        """Memory of an open graph, quantized as the bundle's: packed weights, and the rows of a table that are read."""
        quantization = self.inputs.quantization
        whole, table = graph_bytes(shape, quantization, tied=tied), 4 * shape.table[0] * shape.table[1]
        if quantization.bits == 32:
            return whole + (2 * table if tied else 0)  # not packed; the builder's table is transposed twice
        of_table = 0 if tied and quantization.bits != 8 else table
        return int(_PACKED * (whole - of_table)) + min(of_table, self.rows)

    @property
    def rows(self) -> int:
        """Memory of the rows that a prompt reads of a table in float32."""
        return self.longest_prefix * (_LOOKED_UP + 4 * self.hidden)

    def activations(self, tokens: int, most: int) -> int:
        """Memory of a prompt of so many tokens, `most` of them a forward.

        What the layers make of each token, the mask of each to each, and scores where they are held.
        """
        step, wide = min(tokens, most), max(max(pair) for pair in self.shape.linear)
        return 4 * step * (3 * wide + 12 * self.hidden) + (8 + 12 * self._held_scores) * step * tokens

    def running(self, tokens: int) -> int:
        """Memory of onnxruntime while it reads a prompt of so many tokens."""
        return self.activations(tokens, ort_engine.CHUNK) + 3 * self.token_kv * tokens

    @property
    def streamed(self) -> bool:
        """Whether the reference holds one layer at a time."""
        return 4 * self.shape.weights > LARGE

    def reference(self, shape: BaseShape, tokens: int) -> int:
        """Memory of the reference, of so many of the base's layers, while it reads a prompt of so many tokens."""
        reading = self.activations(tokens, torch_engine.CHUNK) + self.adapter_memory
        # For an adapter that replaces modules or weights it is loaded whole.
        if not self.streamed or not all(bundled.adapter.plain for bundled in self.merged):
            return 2 * 4 * shape.weights + reading
        checkpoint, adapters = self.inputs.checkpoint, (*self.external, *self.merged)
        tables = any(on_tables(bundled.adapter.folder, checkpoint) for bundled in adapters)
        pieces = 2 * 4 * shape.table[0] * shape.table[1] if tables else 2 * 6 * _HEAD_PIECE
        return 2 * 4 * shape.layer + pieces + reading

    def forward_seconds(self, prompts: Sequence[int], speed: float) -> float:
        """Seconds on all cores for prompts of so many tokens; each token attends to half of its prompt."""
        linear, attention = sum(n * k for n, k in self.shape.linear), self.hidden * self.shape.layers
        return sum(2 * tokens * (linear + attention * tokens) for tokens in prompts) / (speed * self.cores)

    def quantized(self, recipe: Quantization) -> ModelSizes:
        """The same model by another recipe."""
        return replace(self, inputs=replace(self.inputs, quantization=recipe))

    def _of_mode(self, mode: Mode) -> tuple[BundledAdapter, ...]:
        files = {bundled.path: bundled for bundled in self.inputs.bundled_adapters}
        return tuple(bundled for bundled in files.values() if bundled.adapter.mode == mode)

    @cached_property
    def _held_scores(self) -> int:
        """Heads whose scores are all held: none, unless they are capped."""
        config = self.inputs.checkpoint.config
        return config.num_attention_heads if getattr(config, "attn_logit_softcapping", None) else 0
