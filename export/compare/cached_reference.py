"""The reference for several comparisons of the same stages: it reads every token sequence once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from typing import Self

import numpy as np

from dualtune_edge.export.compare.record import Logits, Path, logits_after
from dualtune_edge.export.reference.torch_engine import TorchEngine, identify
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.toolkit.files import safe_name


@dataclass(frozen=True)
class LogitsCache:
    """Logits by the tokens that they come after: a file for each stage and comparison, 4 bytes a logit.

    `index` is the number of this comparison, from 0. Files of earlier ones are read, its own is written.
    """

    folder: File
    index: int

    def file(self, stage: str) -> File:
        """The file of this comparison."""
        return self._file(stage, self.index)

    def recall(self, stage: str) -> dict[Path, Logits]:
        """Logits that earlier comparisons of the stage read."""
        rows: dict[Path, Logits] = {}
        for index in range(self.index):
            file = self._file(stage, index)
            if file.is_file():
                with np.load(file) as held:
                    rows |= {tuple(held[f"tokens {n}"].tolist()): held[f"logits {n}"] for n in range(len(held) // 2)}
        return rows

    def note(self, stage: str, rows: dict[Path, Logits]) -> None:
        """Write the logits that this comparison read besides."""
        self.folder.mkdir(exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        for index, (path, logits) in enumerate(rows.items()):
            arrays |= {f"tokens {index}": np.array(path), f"logits {index}": logits}
        with self.file(stage).open("wb") as out:
            np.savez(out, allow_pickle=False, **arrays)

    def _file(self, stage: str, index: int) -> File:
        return self.folder / f"{index}.{safe_name(stage)}.npz"


class CachedReference(HeldSequence):
    """An `Engine` over the reference, which is opened at its first forward. One stage at a time: `of`.

    Args:
        open_reference: opens it.
        vocab_size: width of the logits.
        context_length: the most tokens.
        cache: logits of earlier comparisons; None: this is the only comparison.

    """

    def __init__(
        self, open_reference: Callable[[], TorchEngine], vocab_size: int, context_length: int, cache: LogitsCache | None
    ) -> None:
        super().__init__(vocab_size, context_length, identify)
        self._open_reference, self._cache = open_reference, cache
        self._engine: TorchEngine | None = None
        self._known: dict[Path, Logits] = {}
        self._read: dict[Path, Logits] = {}
        self._expected: Path = ()
        self._prompt: Path = ()
        self._prefix: Path = ()
        self._loaded: str | None = None  # the adapter that the reference has in use
        self._ready = False

    @contextmanager
    def of(self, stage: str, adapter: str | None, prefix: Path = ()) -> Iterator[Self]:
        """Answer for a stage; the logits that were read for it are written at the end.

        `prefix` begins its prompts, and is read by itself: the next stage with the same prefix and adapter goes on
        behind it.
        """
        self.use(adapter)
        self._prefix = prefix
        self._known = self._cache.recall(stage) if self._cache else {}
        self._read = {}
        yield self
        if self._cache:
            self._cache.note(stage, self._read)

    def use(self, adapter: str | None) -> None:
        """Answer under an adapter (None: the base), and hold nothing."""
        super().use(adapter)
        self._expected, self._prompt, self._prefix, self._ready = (), (), (), False
        self._known, self._read = {}, {}

    def expect(self, tokens: Sequence[int]) -> None:
        """Tokens that will probably be read: see `TorchEngine`."""
        self._expected = tuple(tokens)

    def begin(self, prompt: Sequence[int]) -> None:
        """Read a new prompt: see `TorchEngine`."""
        self.rewind(0)
        self._prompt = tuple(prompt)

    def forward(self, tokens: Sequence[int]) -> Logits:
        """Append tokens; logits after the last, (vocab_size,)."""
        wanted = (*self.tokens, *tokens)
        held = self._known.get(wanted, self._read.get(wanted))
        if held is None:
            held = self._read[wanted] = logits_after(self._reference(), wanted)
        self._tokens = wanted
        return held.copy()

    def close(self) -> None:
        """Close the reference, if it is open."""
        super().close()
        if self._engine:
            self._engine.close()

    def _reference(self) -> TorchEngine:
        if self._engine is None:
            self._engine = self._open_reference()
        if not self._ready:
            self._prepare(self._engine)
            self._ready = True
        self._engine.begin(self._prompt)
        self._engine.expect(self._expected)
        return self._engine

    def _prepare(self, engine: TorchEngine) -> None:
        """Have the adapter in use, and hold the prefix."""
        if self._loaded != self.adapter:
            engine.forget_adapters()
            engine.use(self.adapter)
            self._loaded = self.adapter
        elif not self._prefix:
            engine.use(self.adapter)
        if self._prefix:
            engine.hold(self._prefix)
