"""An engine on plain onnxruntime: IO binding, and one KV buffer that is both past and present.

GroupQueryAttention appends to the cache in place where `past_key_values.*` and `present.*` are the same memory, so a
step copies nothing. An external adapter is a set of tensors bound as ordinary inputs, and activating one is picking
its IOBinding: a slot that the adapter leaves alone keeps the graph's rank-0 default, which adds nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime.bundle.model_source import AdapterSource, ModelSource
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT, Snapshot
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.runtime.engines.kv_cache import KvBuffers
from dualtune_edge.runtime.engines.ort_graph import (
    KV,
    Slots,
    Tensors,
    bind_adapter,
    bind_no_adapter,
    failed,
    fitting_tensors,
    open_graph,
    ortvalue,
    slots_of,
)
from dualtune_edge.runtime.engines.providers import Graph
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.errors import EngineError

# Tokens a run. A stop waits for one operator: of 1,024 tokens the largest takes 0.1 s at 0.5B, of 128 a tenth of that,
# and a prompt is read as fast. Activations take 100 KB a token.
CHUNK: Final = 128


@dataclass
class _Binding:
    """A session with one adapter's tensors and the KV buffer bound."""

    session: onnxruntime.InferenceSession
    io: onnxruntime.IOBinding
    tensors: tuple[onnxruntime.OrtValue, ...] = ()  # of an external adapter: mapped, so they take no memory of our own


class OrtEngine(HeldSequence):
    """The Engine protocol on onnxruntime. Graphs are opened, and adapters bound, at first use, and stay so."""

    def __init__(self, source: ModelSource, settings: SessionSettings) -> None:
        """Open the base graph if an external adapter needs it, and check each against it.

        Raises:
            EngineError: a graph or an adapter is not as expected.

        """
        super().__init__(source.vocab_size, source.context_length, source.identity)
        self._source, self._settings = source, settings
        self._graphs: dict[Path, Graph] = {}
        self._bindings: dict[str, _Binding] = {}  # by what the KV depends on: adapters with one file share it
        self._tensors: dict[str, Tensors] = {}  # of adapters that fit, and are not bound yet
        self._slots: dict[Path, Slots] = {}  # of each graph that was opened
        self._kv = KvBuffers(source.cache, limit=source.context_length)
        self._mask = np.ones((1, 0), dtype=np.int64)  # attention to every token; a view of it is bound
        for adapter in source.adapters:
            if adapter.mode == "external":
                self._check(adapter)

    @property
    def kv_format(self) -> str:
        """How KV values lie, and which provider computed them."""
        provider = self._settings.provider
        return ORT_KV_FORMAT if provider == CPU_PROVIDER else f"{ORT_KV_FORMAT}/{provider}"

    @property
    def placement(self) -> Placement:
        """Who runs the graph that was opened first; all have the same provider."""
        graph = next(iter(self._graphs.values()), None)
        return graph.placement if graph else Placement(instead=self._settings.instead)

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        self._binding(adapter)
        super().use(adapter)

    def switch(self, adapter: str | None) -> None:
        """Keep what the base has computed, and go on under an activated adapter (None: the base)."""
        if adapter is not None and not self._source.invocation(adapter):
            raise EngineError(
                f"adapter {adapter}",
                found="a plain adapter behind KV state of the base",
                expected="an activated one: under any other the whole prompt is computed",
                fix="Activate it with `use`.",
            )
        self._binding(adapter)
        super().switch(adapter)

    def release(self, adapter: str | None) -> None:
        """Unmap an adapter's file until its next use, and close a graph that no other one is for.

        Of many large files the pages read would pile up; a merged adapter's graph is as large as the base's.
        """
        identity = self._source.identity(adapter)
        self._bindings.pop(identity, None)
        self._tensors.pop(identity, None)
        used = [binding.session for binding in self._bindings.values()]
        waiting = {self._source.folder} if self._tensors else ()
        self._graphs = {
            folder: graph for folder, graph in self._graphs.items() if graph.session in used or folder in waiting
        }

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after the last, shape (vocab_size,)."""
        logits: NDArray[np.float32] = self.forward_rows(tokens, [len(tokens) - 1])[0]
        return logits

    def forward_rows(self, tokens: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after those of indices `rows`, shape (len(rows), vocab_size)."""
        binding = self._binding(self._adapter)
        held, count = len(self._tokens), len(tokens)
        ids = self._appendable(tokens)
        _check_rows(rows, count)
        self._reserve(held + count)
        logits, at, done = np.empty((len(rows), self.vocab_size), dtype=np.float32), np.asarray(rows, dtype=np.int64), 0
        for start in range(0, count, CHUNK):
            chunk = ids[:, start : start + CHUNK]
            inside = at[(at >= start) & (at < start + CHUNK)] - start
            length = held + start + chunk.shape[1]
            if inside.size:
                self._run(binding, chunk, length, inside, logits[done : done + len(inside)])
                done += len(inside)
            else:  # the graph computes a row in any case
                self._run(
                    binding,
                    chunk,
                    length,
                    np.zeros(1, dtype=np.int64),
                    np.empty_like(logits, shape=(1, self.vocab_size)),
                )
        self._tokens += tuple(tokens)
        return logits

    def snapshot(self, start: int = 0) -> Snapshot:
        """A compact copy of the KV state."""
        self._require_held(start)
        return Snapshot(self.identity, self.tokens, self._kv.copy(len(self._tokens), start), start)

    def close(self) -> None:
        """Release sessions and buffers."""
        super().close()
        self._tensors.clear()
        self._bindings.clear()
        self._graphs.clear()
        self._kv = KvBuffers(self._source.cache, limit=0)

    def _load_kv(self, state: NDArray[np.generic], start: int, length: int) -> bool:
        """Write the KV values of the tokens [start, length)."""
        self._reserve(length)
        self._kv.load(state, length, start)
        return True

    def _run(
        self,
        binding: _Binding,
        ids: NDArray[np.int64],
        length: int,
        rows: NDArray[np.int64],
        logits: NDArray[np.float32],
    ) -> None:
        """Append ids, shape (1, tokens), to a cache that then holds `length`; logits of `rows` go into `logits`."""
        io = binding.io
        io.bind_ortvalue_input("input_ids", ortvalue(ids))
        io.bind_ortvalue_input("attention_mask", ortvalue(self._mask[:, :length]))
        io.bind_ortvalue_input("logits_at", ortvalue(rows))
        io.bind_ortvalue_output("logits_rows", ortvalue(logits[np.newaxis]))
        try:
            binding.session.run_with_iobinding(io, self._options)
        except Exception as error:  # onnxruntime's errors share no base class
            self._refuse_interrupted()
            raise failed("forward", error) from error

    def _reserve(self, length: int) -> None:
        """Make room for `length` tokens. Where the buffer moves every binding follows, so that the old one is freed."""
        if self._kv.reserve(length, held=len(self._tokens)):
            self._mask = np.ones((1, self._kv.capacity), dtype=np.int64)
            for binding in self._bindings.values():
                self._bind_kv(binding.io)

    def _bind_kv(self, io: onnxruntime.IOBinding) -> None:
        """Bind the KV buffer as past and as present."""
        for layer in range(self._source.cache.layers):
            for half, index in KV:
                value = ortvalue(self._kv.values[layer, index])
                io.bind_ortvalue_input(f"past_key_values.{layer}.{half}", value)
                io.bind_ortvalue_output(f"present.{layer}.{half}", value)

    def _binding(self, name: str | None) -> _Binding:
        """The binding of an adapter, made at first use."""
        self._require_open()
        identity = self._source.identity(name)
        if identity not in self._bindings:
            adapter = None if name is None else self._source.adapter(name)
            try:
                self._bindings[identity] = self._bind(adapter)
            except EngineError as error:
                if self._settings.provider == CPU_PROVIDER:
                    raise
                self._fall_back(error)
                self._bindings[identity] = self._bind(adapter)
        return self._bindings[identity]

    def _bind(self, adapter: AdapterSource | None) -> _Binding:
        merged = adapter is not None and adapter.mode == "merged"
        folder = adapter.path if adapter and merged else self._source.folder
        opened = folder in self._graphs
        session = self._session(folder)
        binding = _Binding(session, session.io_binding())
        bind_no_adapter(session, binding.io)
        if adapter and not merged:
            tensors = self._tensors.pop(self._source.identity(adapter.name), None)
            binding.tensors = bind_adapter(binding.io, tensors or self._fitting(adapter))
        self._bind_kv(binding.io)
        if not opened and self._settings.provider != CPU_PROVIDER:
            self._try_out(binding)
        return binding

    def _check(self, adapter: AdapterSource) -> None:
        """Refuse an external adapter that does not fit its graph. To bind all would take longer than a short call."""
        if self._settings.provider != CPU_PROVIDER:  # whether it runs the graph is seen now
            self._binding(adapter.name)
        elif (identity := self._source.identity(adapter.name)) not in self._tensors:
            self._tensors[identity] = self._fitting(adapter)

    def _fitting(self, adapter: AdapterSource) -> Tensors:
        """An external adapter's tensors, once they fit the base's graph."""
        folder = self._source.folder
        session = self._session(folder)
        if folder not in self._slots:
            self._slots[folder] = slots_of(session)
        return fitting_tensors(self._slots[folder], adapter.path)

    def _session(self, folder: Path) -> onnxruntime.InferenceSession:
        """The graph of a folder, opened at first use."""
        if folder not in self._graphs:
            self._graphs[folder] = open_graph(folder, self._source, self._settings)
        return self._graphs[folder].session

    def _try_out(self, binding: _Binding) -> None:
        """Run one token: some of what a provider cannot do shows only then. The KV state is dropped."""
        self._tokens, self._border = (), 0
        self._reserve(1)
        self._bind_kv(binding.io)
        logits = np.empty((1, self.vocab_size), dtype=np.float32)
        self._run(binding, np.zeros((1, 1), dtype=np.int64), 1, np.zeros(1, dtype=np.int64), logits)

    def _fall_back(self, error: EngineError) -> None:
        """Let the CPU provider run every graph from now on: the other one fails on this bundle."""
        self._settings = self._settings.without_provider(error.found)
        self._bindings.clear()
        self._graphs.clear()


def _check_rows(rows: Sequence[int], count: int) -> None:
    """Raise `EngineError` unless `rows` are rising indices of `count` tokens, one or more."""
    if not rows or rows[0] < 0 or rows[-1] >= count or any(a >= b for a, b in itertools.pairwise(rows)):
        raise EngineError(
            "forward", found=f"rows {list(rows)}", expected=f"rising indices of {count} tokens", fix="Ask for those."
        )
