"""What every engine promises, whatever drives the graph."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines import genai_engine, ort_engine
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, RowsEngine, Snapshot, StateEngine, open_engine
from dualtune_edge.toolkit.errors import EngineError, RequestError, StoppedError

SETTINGS = SessionSettings(intra_op_threads=1)
TOKENS = tuple(int(token) for token in np.random.default_rng(0).integers(0, 288, 300))


def test_it_knows_its_model(engine: Engine) -> None:
    assert (engine.vocab_size, engine.context_length, engine.adapter, engine.tokens) == (288, 512, None, ())


def test_forward_appends(engine: Engine) -> None:
    logits = engine.forward(TOKENS[:5])
    engine.forward(TOKENS[5:6])
    assert engine.tokens == TOKENS[:6]
    assert logits.shape == (288,)
    assert logits.dtype == np.float32


def test_logits_are_the_callers_own(engine: Engine) -> None:
    logits = engine.forward(TOKENS[:5])
    before = logits.copy()
    engine.forward(TOKENS[5:6])
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("sizes", [[299, 1], [1, 299], [100, 100, 100], [7] * 42 + [6]])
def test_pieces_give_what_the_whole_gives(engine: Engine, noise: float, sizes: list[int]) -> None:
    whole = engine.forward(TOKENS)
    engine.rewind(0)
    start = 0
    for size in sizes:
        logits = engine.forward(TOKENS[start : start + size])
        start += size
    assert engine.tokens == TOKENS
    np.testing.assert_allclose(logits, whole, atol=noise, rtol=0)


@pytest.mark.parametrize("chunk", [1, 50, 299])
def test_a_prompt_longer_than_a_chunk_gives_the_same(
    engine: Engine, noise: float, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    whole = engine.forward(TOKENS)
    engine.use("wide")
    engine.use(None)
    monkeypatch.setattr(ort_engine, "CHUNK", chunk)
    monkeypatch.setattr(genai_engine, "_CHUNK", chunk)
    np.testing.assert_allclose(engine.forward(TOKENS), whole, atol=noise, rtol=0)
    engine.rewind(120)
    np.testing.assert_allclose(engine.forward(TOKENS[120:]), whole, atol=noise, rtol=0)


def test_a_rewound_engine_has_forgotten(engine: Engine, noise: float) -> None:
    expected = engine.forward(TOKENS[:40])
    engine.rewind(20)
    engine.forward(TOKENS[100:150])
    engine.rewind(20)
    assert engine.tokens == TOKENS[:20]
    np.testing.assert_allclose(engine.forward(TOKENS[20:40]), expected, atol=noise, rtol=0)


def test_rewinding_to_nothing_starts_anew(engine: Engine) -> None:
    first = engine.forward(TOKENS[:40])
    engine.rewind(0)
    np.testing.assert_array_equal(engine.forward(TOKENS[:40]), first)


def test_a_restored_snapshot_goes_on_as_if_never_interrupted(int4_engine: Engine) -> None:
    engine = int4_engine
    engine.use("wide")
    engine.forward(TOKENS[:40])
    snapshot = engine.snapshot()
    expected = [engine.forward(TOKENS[40 + step : 41 + step]) for step in range(5)]
    engine.use("narrow")
    engine.forward(TOKENS[::-1])
    engine.use("wide")
    engine.forward(TOKENS[100:180])
    engine.restore(snapshot)
    assert engine.tokens == TOKENS[:40]
    for step, logits in enumerate(expected):
        np.testing.assert_array_equal(engine.forward(TOKENS[40 + step : 41 + step]), logits)


def test_a_snapshot_of_nothing_restores_to_nothing(engine: Engine) -> None:
    empty = engine.snapshot()
    expected = engine.forward(TOKENS[:9])
    engine.restore(empty)
    assert engine.tokens == ()
    np.testing.assert_array_equal(engine.forward(TOKENS[:9]), expected)


def test_a_snapshot_outlives_its_engine(engine: Engine, kind: EngineKind, source: ModelSource) -> None:
    engine.forward(TOKENS[:40])
    snapshot = engine.snapshot()
    expected = engine.forward(TOKENS[40:50])
    engine.close()
    with open_engine(source, SETTINGS, kind) as other:
        other.restore(snapshot)
        np.testing.assert_array_equal(other.forward(TOKENS[40:50]), expected)


def test_a_snapshot_without_values_is_computed_again(engine: Engine, noise: float) -> None:
    engine.forward(TOKENS[:40])
    snapshot = replace(engine.snapshot(), state=None)
    expected = engine.forward(TOKENS[40:50])
    engine.rewind(0)
    engine.restore(snapshot)
    assert engine.tokens == TOKENS[:40]
    np.testing.assert_allclose(engine.forward(TOKENS[40:50]), expected, atol=noise, rtol=0)


@pytest.mark.parametrize("other", [None, "narrow", "merged"])
def test_a_snapshot_of_another_adapter_is_refused(engine: Engine, other: str | None) -> None:
    engine.use("wide")
    engine.forward(TOKENS[:9])
    snapshot = engine.snapshot()
    engine.use(other)
    engine.forward(TOKENS[:3])
    with pytest.raises(EngineError, match="adapter"):
        engine.restore(snapshot)
    assert engine.tokens == TOKENS[:3]


def test_a_snapshot_of_another_base_is_refused(engine: Engine, kind: EngineKind, source: ModelSource) -> None:
    with open_engine(replace(source, fingerprint="another"), SETTINGS, kind) as other:
        other.forward(TOKENS[:9])
        with pytest.raises(EngineError, match="another"):
            engine.restore(other.snapshot())


@pytest.mark.parametrize("name", [None, "wide", "narrow", "merged"])
def test_an_adapter_comes_back_exactly(int4_engine: Engine, name: str | None) -> None:
    engine = int4_engine
    engine.use(name)
    first = [engine.forward(TOKENS[:30]), engine.forward(TOKENS[30:31])]
    for between in ("narrow", "merged", None, "wide"):
        engine.use(between)
        engine.forward(TOKENS[50:80])
    engine.use(name)
    np.testing.assert_array_equal([engine.forward(TOKENS[:30]), engine.forward(TOKENS[30:31])], first)


def test_each_adapter_answers_differently(engine: Engine) -> None:
    answers = []
    for name in (None, "wide", "narrow"):
        engine.use(name)
        answers.append(engine.forward(TOKENS[:30]))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(answers[one] - answers[other]).max() > 0.1


@pytest.mark.parametrize("name", [None, "wide", "merged"])
def test_use_drops_the_kv_state(engine: Engine, name: str | None) -> None:
    engine.use(name)
    engine.forward(TOKENS[:9])
    engine.use(name)
    assert engine.adapter == name
    assert engine.tokens == ()


def test_identity_follows_the_adapters_content(engine: Engine) -> None:
    identities = {}
    for name in (None, "wide", "narrow", "merged"):
        engine.use(name)
        identities[name] = engine.identity
    assert len(set(identities.values())) == 4


def test_an_unknown_adapter_is_refused_and_nothing_moves(engine: Engine) -> None:
    engine.use("wide")
    engine.forward(TOKENS[:9])
    with pytest.raises(EngineError, match="wide, narrow, merged"):
        engine.use("missing")
    assert (engine.adapter, engine.tokens) == ("wide", TOKENS[:9])


def test_the_context_can_be_filled(engine: Engine) -> None:
    engine.forward([7] * 511)
    engine.forward([8])
    assert len(engine.tokens) == 512


@pytest.mark.parametrize("held", [0, 500])
def test_a_prompt_longer_than_the_context_is_refused_and_nothing_moves(engine: Engine, held: int) -> None:
    if held:
        engine.forward([7] * held)
    with pytest.raises(RequestError, match=r"513 tokens.*512"):
        engine.forward([8] * (513 - held))
    assert engine.tokens == (7,) * held
    engine.forward([8])


@pytest.mark.parametrize("tokens", [[], [-1], [288], [3, 2**40]])
def test_what_is_no_token_is_refused_and_nothing_moves(engine: Engine, tokens: list[int]) -> None:
    engine.forward(TOKENS[:3])
    with pytest.raises(EngineError):
        engine.forward(tokens)
    assert engine.tokens == TOKENS[:3]


@pytest.mark.parametrize("length", [-1, 4])
def test_rewinding_to_what_is_not_held_is_refused(engine: Engine, length: int) -> None:
    engine.forward(TOKENS[:3])
    with pytest.raises(EngineError, match="0 to 3"):
        engine.rewind(length)
    assert engine.tokens == TOKENS[:3]


def test_what_an_engine_can_do_beyond_the_rest_is_in_its_type(engine: Engine, driver: str) -> None:
    """genai and static graphs give one position's logits only; genai keeps its KV values to itself."""
    assert isinstance(engine, RowsEngine) == driver.startswith("ort")
    assert isinstance(engine, StateEngine) == (not driver.startswith("genai"))
    engine.forward(TOKENS[:3])
    assert (engine.snapshot().state is not None) == (not driver.startswith("genai"))


CALLS: dict[str, Callable[[Engine, Snapshot], object]] = {
    "use": lambda engine, _: engine.use("wide"),
    "use base": lambda engine, _: engine.use(None),
    "forward": lambda engine, _: engine.forward([1]),
    "rewind": lambda engine, _: engine.rewind(0),
    "snapshot": lambda engine, _: engine.snapshot(),
    "restore": lambda engine, snapshot: engine.restore(snapshot),
    "enter": lambda engine, _: engine.__enter__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_engine_refuses(engine: Engine, call: str) -> None:
    engine.forward(TOKENS[:3])
    snapshot = engine.snapshot()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        CALLS[call](engine, snapshot)


def test_closing_twice_is_once(engine: Engine) -> None:
    engine.close()
    engine.close()


def test_graphs_are_opened_at_first_use(kind: EngineKind, source: ModelSource, tmp_path: Path) -> None:
    merged = tuple(adapter for adapter in source.adapters if adapter.mode == "merged")
    without_base = replace(source, folder=tmp_path / "no base here", adapters=merged)
    with open_engine(without_base, SETTINGS, kind) as engine:
        engine.use("merged")
        engine.forward(TOKENS[:9])
        with pytest.raises(EngineError, match="no base here"):
            engine.use(None)


def test_an_unknown_kind_is_refused(source: ModelSource) -> None:
    with pytest.raises(EngineError, match="ort or genai"):
        open_engine(source, SETTINGS, "onnx")  # type: ignore[arg-type]


def test_an_interrupted_engine_appends_nothing_and_goes_on_as_if_nothing_had_been(engine: Engine, noise: float) -> None:
    engine.use(None)
    engine.forward(TOKENS[:4])
    expected = engine.forward(TOKENS[4:9])
    engine.rewind(4)
    engine.interrupt()
    with pytest.raises(StoppedError):
        engine.forward(TOKENS[4:9])
    assert engine.tokens == tuple(TOKENS[:4])
    engine.resume()
    np.testing.assert_allclose(engine.forward(TOKENS[4:9]), expected, atol=noise)


def test_a_forward_that_runs_is_interrupted_from_another_thread(engine: Engine) -> None:
    """However the two threads meet: the forward ends well, or with nothing appended."""
    engine.use(None)
    for _ in range(20):
        thread = threading.Thread(target=engine.interrupt)
        thread.start()
        try:
            engine.forward(TOKENS)
        except StoppedError:
            assert engine.tokens == ()
        thread.join()
        engine.resume()
        engine.rewind(0)
