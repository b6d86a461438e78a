"""Tokens a second, one at a time, of each adapter of a bundle: interleaved, so that all see the same machine."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import open_bundle, open_engine

_PROMPT = 512  # tokens held when decoding begins
_STEPS = 16
_ROUNDS = 7  # the first is a warm-up


def decode_speeds(bundle: Path, threads: int, prompt: int = _PROMPT) -> dict[str, float]:
    """By adapter ("base": none), the median over the rounds."""
    source = open_bundle(bundle, verify="never").model
    seconds: dict[str | None, list[float]] = {
        None: [],
        **{adapter.name: list[float]() for adapter in source.adapters},
    }
    with open_engine(source, SessionSettings(intra_op_threads=threads)) as engine:
        for _ in range(_ROUNDS):
            for name, taken in seconds.items():
                engine.use(name)
                engine.forward([1 + at % 200 for at in range(prompt)])
                start = time.perf_counter()
                for token in range(_STEPS):
                    engine.forward([token + 1])
                taken.append((time.perf_counter() - start) / _STEPS)
    return {name or "base": round(1 / statistics.median(taken[1:]), 2) for name, taken in seconds.items()}
