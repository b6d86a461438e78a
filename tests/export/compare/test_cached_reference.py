"""What the reference has read for one comparison it does not read for the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.cached_reference import CachedReference, LogitsCache
from dualtune_edge.export.compare.record import logits_after
from dualtune_edge.export.reference.torch_engine import TorchEngine

ONE, LONGER, OTHER = (257, 72, 105), (257, 72, 105, 40), (257, 11)


@pytest.fixture
def make(checkpoint: Checkpoint, reference: TorchEngine) -> Callable[[LogitsCache | None, list[str]], CachedReference]:
    def of(memory: LogitsCache | None, opened: list[str]) -> CachedReference:
        def open_reference() -> TorchEngine:
            opened.append("opened")
            return reference

        return CachedReference(open_reference, checkpoint.vocab_size, checkpoint.context_length, memory)

    return of


def test_it_answers_as_the_reference(make: Callable[..., CachedReference], reference: TorchEngine) -> None:
    engine = make(None, [])
    for adapter in (None, "a.wide", "a.narrow"):
        with engine.of("stage", adapter):
            engine.expect(LONGER)
            found = {path: logits_after(engine, path) for path in (ONE, OTHER, LONGER)}
        reference.forget_adapters()
        reference.use(adapter)
        for path, logits in found.items():
            np.testing.assert_allclose(logits, logits_after(reference, path), atol=1e-5)


def test_a_later_comparison_reads_only_what_is_new(make: Callable[..., CachedReference], tmp_path: Path) -> None:
    opened: list[str] = []
    first = make(LogitsCache(tmp_path / "reference", 0), opened)
    with first.of("stage", "a.wide"):
        known = {path: logits_after(first, path) for path in (ONE, LONGER)}
    assert opened == ["opened"]
    second = make(LogitsCache(tmp_path / "reference", 1), opened)
    with second.of("stage", "a.wide"):
        for path, logits in known.items():
            np.testing.assert_array_equal(logits_after(second, path), logits)
        assert opened == ["opened"]
        logits_after(second, OTHER)
    assert opened == ["opened"] * 2
    assert set(LogitsCache(tmp_path / "reference", 2).recall("stage")) == {ONE, LONGER, OTHER}
    assert set(LogitsCache(tmp_path / "reference", 1).recall("stage")) == {ONE, LONGER}


def test_stages_are_kept_apart(make: Callable[..., CachedReference], tmp_path: Path) -> None:
    engine = make(LogitsCache(tmp_path, 0), [])
    with engine.of("one", None):
        logits_after(engine, ONE)
    with engine.of("other", "a.wide"):
        logits_after(engine, OTHER)
    memory = LogitsCache(tmp_path, 1)
    assert (set(memory.recall("one")), set(memory.recall("other"))) == ({ONE}, {OTHER})
    assert memory.recall("third") == {}


def test_a_prefix_that_two_stages_share_is_read_once_and_changes_no_bit(
    make: Callable[..., CachedReference], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    append = TorchEngine._append
    monkeypatch.setattr(
        TorchEngine, "_append", lambda self, ids, keep: (read.append(ids.shape[1]), append(self, ids, keep))[1]
    )
    engine = make(None, [])

    def answered(stage: str, path: tuple[int, ...], prefix: tuple[int, ...]) -> object:
        with engine.of(stage, "a.wide", prefix):
            return logits_after(engine, path)

    first = answered("one", LONGER, ONE)
    other = answered("two", (*ONE, 9), ONE)
    assert read == [3, 1, 1]
    with engine.of("three", "a.narrow"):
        logits_after(engine, OTHER)
    read.clear()
    np.testing.assert_array_equal(answered("two", (*ONE, 9), ONE), other)  # as if the export went on here
    np.testing.assert_array_equal(answered("one", LONGER, ONE), first)
    assert read == [3, 1, 1]
    answered("four", LONGER, ())
    assert read == [3, 1, 1, 4]
