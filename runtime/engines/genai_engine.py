"""An engine on onnxruntime-genai, for graphs that plain onnxruntime cannot drive.

Only `append_tokens`, `get_logits` and `rewind_to` are used: its own sampling loop decides nothing here. Two things it
cannot do are made up for by computing tokens again: its KV state cannot be read or written, so a snapshot is its
tokens; and its buffer cannot grow, so a generator that is full is replaced by one of twice the length.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime_genai
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.runtime.engines.huge_pages import huge_pages
from dualtune_edge.runtime.engines.mapped_weights import GRAPH, NotMapped, mapped_graph
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.errors import EngineError

_SMALLEST: Final = 512  # tokens of the shortest generator
_CHUNK: Final = 1024  # tokens a run: activations take 100 KB a token in a 0.5B model


@dataclass
class _Model:
    """An open graph with the adapters that were loaded into it."""

    model: onnxruntime_genai.Model
    adapters: onnxruntime_genai.Adapters
    loaded: set[str] = field(default_factory=set)


class GenaiEngine(HeldSequence):
    """The Engine protocol on onnxruntime-genai. Graphs and adapters are opened at first use and then stay open."""

    def __init__(self, source: ModelSource, settings: SessionSettings) -> None:
        """Open nothing yet.

        Raises:
            EngineError: an adapter is an activated one.

        """
        for adapter in source.adapters:
            if adapter.invocation:
                raise EngineError(
                    f"adapter {adapter.name}",
                    found="an activated adapter, behind KV state of the base",
                    expected="plain ones: a generator of onnxruntime-genai has the same adapters for all its tokens",
                    fix="Use the engine 'ort'.",
                )
        super().__init__(source.vocab_size, source.context_length, source.identity)
        self._source, self._settings = source, settings
        self._models: dict[Path, _Model] = {}
        self._checked: set[str | None] = set()
        self._generator: onnxruntime_genai.Generator | None = None  # None: made at the next forward
        self._capacity = 0
        self._placement = Placement(instead=settings.instead)

    @property
    def placement(self) -> Placement:
        """The CPU provider: genai_config.json names no other."""
        return self._placement

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        self._check(adapter)
        self._generator = None  # a generator only ever adds adapters
        super().use(adapter)

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after the last, shape (vocab_size,)."""
        self._check(self._adapter)
        ids = self._appendable(tokens)
        try:
            generator = self._with_room(len(self._tokens) + len(tokens))
            logits = _append(generator, ids[0])
        except Exception as error:
            self._generator = None  # how much of it was appended is unknown
            raise _failed("forward", error) from error
        self._tokens += tuple(tokens)
        return logits

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        shorter = length < len(self._tokens)
        super().rewind(length)
        if self._generator is not None and shorter:
            self._generator.rewind_to(length)

    def close(self) -> None:
        """Release models and generators."""
        super().close()
        self._generator = None
        self._models.clear()

    def _with_room(self, length: int) -> onnxruntime_genai.Generator:
        """The generator, holding the tokens, with room for `length`."""
        if self._generator is None or length > self._capacity:
            self._capacity = min(max(2 * length, _SMALLEST), self.context_length)
            self._generator = self._new_generator(self._adapter, self._capacity)
            if self._tokens:
                _append(self._generator, np.asarray(self._tokens))
        return self._generator

    def _new_generator(self, adapter: str | None, length: int) -> onnxruntime_genai.Generator:
        source = None if adapter is None else self._source.adapter(adapter)
        external = source is not None and source.mode == "external"
        opened = self._model(self._source.folder if source is None or external else source.path)
        parameters = onnxruntime_genai.GeneratorParams(opened.model)
        parameters.set_search_options(max_length=length)  # allocated and zeroed at once
        generator = onnxruntime_genai.Generator(opened.model, parameters)
        if source and external:
            if source.name not in opened.loaded:
                opened.adapters.load(str(source.path), source.name)
                opened.loaded.add(source.name)
            generator.set_active_adapter(opened.adapters, source.name)
        return generator

    def _check(self, adapter: str | None) -> None:
        """Run one token at an adapter's first use: only then does genai find that a tensor does not fit the graph.

        Raises:
            EngineError: the graph or the adapter cannot be used, or the engine is closed.

        """
        self._require_open()
        if adapter in self._checked:
            return
        where = str(self._source.folder if adapter is None else self._source.adapter(adapter).path)
        try:
            generator = self._new_generator(adapter, 1)
            generator.append_tokens(np.zeros(1, dtype=np.int32))
            width = int(generator.get_logits().size)
        except Exception as error:
            raise _failed(where, error) from error
        if width != self.vocab_size:
            raise EngineError(
                where, found=f"{width} logits", expected=f"{self.vocab_size}", fix="Export the bundle again."
            )
        self._checked.add(adapter)

    def _model(self, folder: Path) -> _Model:
        """The graph of a folder, opened at first use."""
        if folder not in self._models:
            config = onnxruntime_genai.Config(str(folder))
            config.overlay(json.dumps({"model": {"decoder": self._decoder(folder)}}))
            with huge_pages():
                model = onnxruntime_genai.Model(config)
            self._models[folder] = _Model(model, onnxruntime_genai.Adapters(model))
        return self._models[folder]

    def _decoder(self, folder: Path) -> dict[str, object]:
        """What genai_config.json does not say: how the session runs, and where the mapped graph is."""
        options = _session_options(self._settings)
        if self._settings.weights == "memory":
            return {"session_options": options}
        try:
            graph = mapped_graph(folder, self._source) / GRAPH
            # It takes a path below the bundle's folder only; what that says of links is for the system to resolve.
            filename = os.path.relpath(graph.resolve(), folder.resolve())
        except (NotMapped, ValueError) as reason:  # ValueError: another drive of Windows
            self._placement = self._placement.model_copy(update={"not_mapped": str(reason)})
            return {"session_options": options}
        self._placement = self._placement.model_copy(update={"weights": "mapped"})
        return {"filename": filename, "session_options": {**options, "graph_optimization_level": "ORT_DISABLE_ALL"}}


def _append(generator: onnxruntime_genai.Generator, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Append tokens, one or more, in pieces; the logits after the last. Without asking for them no piece may follow."""
    for start in range(0, len(ids), _CHUNK):
        generator.append_tokens(ids[start : start + _CHUNK].astype(np.int32))
        logits = generator.get_logits()
    return np.asarray(logits, dtype=np.float32).reshape(-1)


def _session_options(settings: SessionSettings) -> dict[str, int | str]:
    """As genai_config.json has them; a name that genai does not know is passed on as a session config entry."""
    return {
        "intra_op_num_threads": settings.intra_op_threads,
        "log_severity_level": 3,  # errors: a warning for each overridable slot says nothing new
        "session.intra_op.allow_spinning": "1" if settings.spinning else "0",
    }


def _failed(where: str, error: Exception) -> EngineError:
    return EngineError(
        where,
        found=(str(error).strip() or type(error).__name__).splitlines()[0],
        expected="onnxruntime-genai to work on it",
        fix="Export the bundle again.",
    )
