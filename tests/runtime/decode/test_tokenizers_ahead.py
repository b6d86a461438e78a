"""The tokenizers are read beside the weights, once, and what is wrong with them is an error where they are needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from threading import Event

import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import pipeline
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.decode import tokenizers_ahead
from dualtune_edge.runtime.decode.tokenizers_ahead import TokenizersAhead
from dualtune_edge.runtime.engines.engine import Engine, open_engine
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.errors import BundleError

SETTINGS = SessionSettings(intra_op_threads=1)


def test_they_are_the_bundles(exported: Path) -> None:
    bundle = open_bundle(exported)
    ahead = TokenizersAhead(bundle)
    assert ahead.base is bundle.tokenizer
    assert ahead.constraint.vocab_size <= bundle.manifest.base.vocab_size
    assert ahead.constraint is ahead.constraint
    ahead.close()
    ahead.close()


def test_they_are_begun_before_the_weights_are_opened(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Event()

    def read(*_of: object, **_also: object) -> None:
        begun.set()

    def opened(*of: object) -> Engine:
        assert begun.wait(timeout=60)
        return open_engine(*of)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizers_ahead, "open_tokenizer", read)
    monkeypatch.setattr(pipeline, "open_engine", opened)
    with Agent.open(exported, settings=SETTINGS):
        assert begun.is_set()


def test_faults_are_told_where_they_are_needed(exported: Path, tmp_path: Path) -> None:
    bundle = dataclasses.replace(open_bundle(exported), root=tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}", encoding="utf-8")
    ahead = TokenizersAhead(bundle)
    for name in ("base", "constraint"):
        with pytest.raises(BundleError, match="SHA-256"):
            getattr(ahead, name)
