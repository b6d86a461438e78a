"""What plain onnxruntime promises beyond the protocol: where the cache lies in memory changes no bit."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines import ort_engine
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.toolkit.errors import EngineError, RequestError

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
        large.forward([1] * 448)
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


def test_adapters_of_one_content_are_read_once(int4: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    fitting = ort_engine.fitting_tensors
    monkeypatch.setattr(ort_engine, "fitting_tensors", lambda *of: (read.append(of[1].name), fitting(*of))[1])
    again = tuple(adapter.model_copy(update={"name": f"{adapter.name} again"}) for adapter in int4.adapters)
    with OrtEngine(dataclasses.replace(int4, adapters=int4.adapters + again), SETTINGS) as engine:
        assert sorted(read) == ["int4-narrow.onnx_adapter", "int4-wide.onnx_adapter"]
        engine.use("wide")
        expected = run(engine)
        engine.use("wide again")
        np.testing.assert_array_equal(run(engine), expected)


def test_a_released_adapter_is_bound_again(int4: ModelSource) -> None:
    with OrtEngine(int4, SETTINGS) as engine:
        engine.use("wide")
        expected = run(engine)
        bound = len(engine._bindings)
        engine.release("wide")
        assert len(engine._bindings) == bound - 1
        engine.use("wide")
        np.testing.assert_array_equal(run(engine), expected)


def test_a_graph_that_nothing_is_bound_to_is_closed(int4: ModelSource) -> None:
    with OrtEngine(int4, SETTINGS) as engine:
        engine.use("wide")
        expected = run(engine)
        engine.release("wide")
        assert engine._graphs  # "narrow" is bound
        for adapter in int4.adapters:
            engine.release(adapter.name)
        assert not engine._graphs
        engine.use("wide")
        np.testing.assert_array_equal(run(engine), expected)


def test_a_prompt_longer_than_a_chunk_goes_in_pieces(fp32: ModelSource, monkeypatch: Any) -> None:
    with OrtEngine(fp32, SETTINGS) as engine:
        whole = engine.forward(TOKENS)
        engine.rewind(0)
        monkeypatch.setattr(ort_engine, "CHUNK", 50)
        np.testing.assert_allclose(engine.forward(TOKENS), whole, atol=1e-4, rtol=0)
        assert engine.tokens == TOKENS


@pytest.mark.parametrize("adapter", [None, "wide"])
def test_a_prompt_goes_in_small_pieces_whose_size_changes_no_bit(
    int4: ModelSource, monkeypatch: pytest.MonkeyPatch, adapter: str | None
) -> None:
    lengths = []

    def recorded(self: OrtEngine, binding: Any, ids: Any, *others: Any) -> None:
        lengths.append(ids.shape[1])
        plain(self, binding, ids, *others)

    plain = OrtEngine._run
    monkeypatch.setattr(OrtEngine, "_run", recorded)
    with OrtEngine(int4, SETTINGS) as engine:
        engine.use(adapter)
        logits, state = engine.forward(TOKENS), engine.snapshot().state
        assert max(lengths) <= 128  # a stop waits for one operator on so many
        for chunk in (1024, 200, 50):
            monkeypatch.setattr(ort_engine, "CHUNK", chunk)
            engine.rewind(0)
            np.testing.assert_array_equal(engine.forward(TOKENS), logits)
            np.testing.assert_array_equal(engine.snapshot().state, state)


@pytest.mark.parametrize("chunk", [1024, 7])
@pytest.mark.parametrize("rows", [[0], [19], [0, 1, 2], [3, 11, 19], list(range(20))])
def test_rows_are_what_each_prefix_gives(
    fp32: ModelSource, monkeypatch: pytest.MonkeyPatch, chunk: int, rows: list[int]
) -> None:
    monkeypatch.setattr(ort_engine, "CHUNK", chunk)
    with OrtEngine(fp32, SETTINGS) as engine:
        engine.use("wide")
        engine.forward(TOKENS[:30])
        found = engine.forward_rows(TOKENS[30:50], rows)
        assert engine.tokens == TOKENS[:50]
        engine.rewind(30)
        alone = [engine.forward([token]) for token in TOKENS[30:50]]
        np.testing.assert_allclose(found, [alone[row] for row in rows], atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [[], [-1], [3], [1, 1], [2, 1], [0, 3]])
def test_rows_that_are_none_are_refused_and_nothing_moves(fp32: ModelSource, rows: list[int]) -> None:
    with OrtEngine(fp32, SETTINGS) as engine:
        engine.forward(TOKENS[:5])
        with pytest.raises(EngineError, match="rising indices of 3"):
            engine.forward_rows(TOKENS[5:8], rows)
        with pytest.raises(RequestError, match="513"):
            engine.forward_rows([7] * 508, [0])
        assert engine.tokens == TOKENS[:5]


def test_a_snapshot_of_the_end_is_restored_behind_its_beginning_bit_for_bit(int4: ModelSource) -> None:
    with OrtEngine(int4, SETTINGS) as engine:
        engine.use("wide")
        engine.forward(TOKENS[:300])
        beginning = engine.snapshot()
        engine.forward(TOKENS[300:340])
        end = engine.snapshot(start=300)
        assert end.state is not None
        assert end.state.shape[3] == 40
        expected = engine.forward(TOKENS[340:350])
        engine.use("wide")
        with pytest.raises(EngineError, match="not held"):
            engine.restore(end)
        engine.restore(beginning)
        engine.forward(TOKENS[:9])
        engine.restore(end)
        assert engine.tokens == TOKENS[:340]
        np.testing.assert_array_equal(engine.forward(TOKENS[340:350]), expected)
        with pytest.raises(EngineError, match="0 to 350"):
            engine.snapshot(start=351)
