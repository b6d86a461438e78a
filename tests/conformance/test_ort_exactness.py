"""What plain onnxruntime promises beyond the protocol: where the cache lies in memory changes no bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import ort_engine
from dualtune_edge.runtime.engine import ModelSource
from dualtune_edge.runtime.ort_engine import OrtEngine

SETTINGS = SessionSettings(intra_op_threads=1)
TOKENS = tuple(int(token) for token in np.random.default_rng(2).integers(0, 288, 420))
SIZES = (200, 1, 1, 90, 1, 127)


def run(engine: OrtEngine) -> list[Any]:
    """The logits after each piece."""
    bounds = [0, *np.cumsum(SIZES)]
    return [engine.forward(TOKENS[start:end]) for start, end in itertools.pairwise(bounds)]


def test_a_buffer_that_grew_gives_the_same_bits_as_one_that_was_large(int4: ModelSource) -> None:
    with OrtEngine(int4, SETTINGS) as small, OrtEngine(int4, SETTINGS) as large:
        large.use("wide")
        large.forward([1] * 512)
        large.use("wide")
        small.use("wide")
        assert small._kv.capacity == 0
        grown = run(small)
        assert small._kv.capacity == large._kv.capacity == 512
        np.testing.assert_array_equal(grown, run(large))


def test_a_snapshot_of_decoded_and_rewound_state_keeps_every_bit(int4: ModelSource) -> None:
    with OrtEngine(int4, SETTINGS) as engine:
        engine.use("wide")
        run(engine)
        engine.rewind(260)
        snapshot = engine.snapshot()
        expected = [engine.forward(TOKENS[:7]), engine.forward(TOKENS[7:8])]
        engine.use("narrow")
        run(engine)
        engine.use("wide")
        engine.restore(snapshot)
        np.testing.assert_array_equal([engine.forward(TOKENS[:7]), engine.forward(TOKENS[7:8])], expected)


def test_a_snapshot_is_compact(fp32: ModelSource) -> None:
    with OrtEngine(fp32, SETTINGS) as engine:
        engine.forward(TOKENS[:10])
        state = engine.snapshot().state
        assert state is not None
        assert state.shape == (2, 2, 2, 10, 16)  # layers, keys and values, heads, tokens, head size


def test_a_prompt_longer_than_a_chunk_goes_in_pieces(fp32: ModelSource, monkeypatch: Any) -> None:
    with OrtEngine(fp32, SETTINGS) as engine:
        whole = engine.forward(TOKENS)
        engine.rewind(0)
        monkeypatch.setattr(ort_engine, "_CHUNK", 50)
        np.testing.assert_allclose(engine.forward(TOKENS), whole, atol=1e-4, rtol=0)
        assert engine.tokens == TOKENS
